"""The images: base images pulled or stood in for, our four built, and what must not be in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import orjson

from fraud_pipeline_tests.stack_test.commands import StackTestFailed, run, succeeds
from fraud_pipeline_tests.stack_test.engine import Engine

ROOT: Final = Path(__file__).resolve().parents[2]
TARGETS: Final = ("stream", "service", "mlflow", "pipeline")
TAG: Final = "stack-test"
ACCOUNT: Final = 10001
BUILD_S: Final = 3600.0
"""Three environments of hundreds of packages, fetched, unpacked and compiled; ten minutes on a free machine."""
STANDIN_S: Final = 1800.0
PULL_S: Final = 1800.0
LOOK_S: Final = 300.0
PIP_OPTIONS: Final = ("index-url", "extra-index-url", "trusted-host", "default-timeout", "cert")
"""pip's own settings that say where packages are, and whom to trust."""
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
"""The one place of certificates that an image has too."""
FORBIDDEN: Final = {
    "stream": ("dagster", "mlflow", "pandas", "sklearn", "xgboost", "bentoml", "fraud_pipeline.defs"),
    "service": ("dagster", "mlflow", "pandas", "sklearn", "xgboost", "fraud_pipeline.defs"),
    "mlflow": ("dagster", "fraud_pipeline"),
    "pipeline": ("bentoml",),
}
"""Modules that the role has no use for."""
MODULES: Final = """
import importlib.util, json, sys
def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
print(json.dumps([name for name in sys.argv[1:] if there(name)]))
"""
KERNELS: Final = """
import json, os, pathlib
from fraud_pipeline.domain import kernel_cache
files = lambda: sorted(path.name for path in pathlib.Path(kernel_cache.CACHE_DIR).rglob("*.nbc"))
before = files()
from fraud_pipeline.domain import customer_record, feature_batch, feature_many_writers, payment_columns
for module in (customer_record, feature_batch, feature_many_writers, payment_columns):
    module.warm()
print(json.dumps({"shipped": len(before), "compiled": len(files()) - len(before), "uid": os.getuid()}))
"""
"""Whether the kernels that the image has are the ones that its code wants."""


def image(target: str) -> str:
    """Its name, as docker-compose.yml says it."""
    return f"fraud-pipeline/{target}:{TAG}"


def base_images() -> list[str]:
    """Other people's images, by the names and tags in the Dockerfile and the compose file."""
    files = "\n".join((ROOT / name).read_text() for name in ("Dockerfile", "docker-compose.yml"))
    return sorted(set(re.findall(r"(?:ARG PYTHON_IMAGE=|\bimage: )([a-z/]+:[\w.-]+)", files)))


def have_bases(engine: Engine, *, stand_ins: bool) -> str:
    """Every base image is there afterwards: as it was, pulled, or a stand-in."""
    if stand_ins:
        environment = engine.environment | {"PYTHON": sys.executable}
        run((str(ROOT / "deploy/standin/build"),), timeout_s=STANDIN_S, environment=environment)
        return f"stand-ins, made here: {', '.join(base_images())}"
    for name in base_images():
        if not succeeds(("docker", "image", "inspect", name), timeout_s=LOOK_S, environment=engine.environment):
            engine.docker("pull", "--quiet", name, timeout_s=PULL_S)
    return ", ".join(base_images())


def build(engine: Engine, target: str) -> str:
    """Its size. The machine's own index goes in as build arguments, by their names: their values are in no command line."""
    given = {f"PIP_{option.upper().replace('-', '_')}": value for option, value in _pip_settings().items()}
    arguments = [part for name in sorted(given) for part in ("--build-arg", name)]
    run(
        ("docker", "build", "--quiet", "--target", target, "--tag", image(target), *arguments, str(ROOT)),
        timeout_s=BUILD_S, environment=engine.environment | given,
    )  # fmt: skip
    size = int(engine.docker("image", "inspect", "--format", "{{.Size}}", image(target)))
    return f"{size / 1e6:,.0f} MB"


def check(engine: Engine, target: str) -> str:
    """What an image promises. StackTestFailed where it does not keep it."""
    config: dict[str, Any] = orjson.loads(
        engine.docker("image", "inspect", "--format", "{{json .Config}}", image(target))
    )
    if config["User"] != "fraud" or "org.opencontainers.image.title" not in (config["Labels"] or {}):
        raise StackTestFailed(f"{image(target)} runs as {config['User']!r}, with labels {config['Labels']}.")
    history = engine.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image(target))
    if "PIP_" in history:
        raise StackTestFailed(f"{image(target)}: pip's settings stand in its history.")
    found = _inside(engine, target, MODULES, *FORBIDDEN[target])
    if found:
        raise StackTestFailed(f"{image(target)} holds {', '.join(found)}, which its role has no use for.")
    if target == "mlflow":
        return "runs as fraud, nothing of ours in it"
    kernels = _inside(engine, target, KERNELS)
    if kernels["uid"] != ACCOUNT or not kernels["shipped"] or kernels["compiled"]:
        raise StackTestFailed(f"{image(target)}: {kernels}; its kernels should be there, and none compiled anew.")
    return f"runs as {kernels['uid']} on a read-only root, {kernels['shipped']} compiled kernels, without {', '.join(FORBIDDEN[target])}"


def _inside(engine: Engine, target: str, program: str, *arguments: str) -> Any:
    """What a Python program says in a container as strict as those of the compose file."""
    strict = ("--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL")
    said = engine.docker("run", *strict, image(target), "python", "-c", program, *arguments, timeout_s=LOOK_S)
    return orjson.loads(said.splitlines()[-1])


def _pip_settings() -> dict[str, str]:
    """Option -> value, from the environment or pip's files, as pip itself reads them."""
    said = subprocess.run(
        (sys.executable, "-m", "pip", "config", "list"), capture_output=True, text=True, check=False, timeout=LOOK_S
    ).stdout
    found = {}
    for line in said.splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2]
        if option in PIP_OPTIONS:
            found[option] = value.strip("'\"")
    for option in PIP_OPTIONS:
        from_environment = os.environ.get(f"PIP_{option.upper().replace('-', '_')}")
        if from_environment:
            found[option] = from_environment
    return {option: value for option, value in found.items() if option != "cert" or value == CERTIFICATES}
