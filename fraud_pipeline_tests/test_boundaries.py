"""The arrow domain <- adapters <- entry points, checked twice: by what a fresh interpreter loads, and by what the source imports."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (ROOT / "fraud_pipeline", ROOT / "serving", ROOT / "streaming")
TRAINING = (
    "dagster",
    "mlflow",
    "pandas",
    "sklearn",
    "xgboost",
    "evidently",
    "great_expectations",
    "matplotlib",
    "optuna",
    "imblearn",
)


def loaded_by(statement: str, packages: tuple[str, ...]) -> set[str]:
    """Which of the packages a fresh interpreter has loaded after the statement."""
    program = f"{statement}\nimport sys\nprint(*sorted(set({packages!r}) & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    return set(answer.stdout.split())


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import fraud_pipeline.domain.decision", TRAINING),
        (
            "import fraud_pipeline.domain.bundle, fraud_pipeline.domain.feature_state",
            (*TRAINING, "sqlalchemy", "fsspec"),
        ),
        ("import fraud_pipeline.adapters.ledger", (*TRAINING, "numba")),
        (
            "import fraud_pipeline.cli",
            (*TRAINING, "numba", "numpy", "pyarrow", "pydantic", "pydantic_settings", "sqlalchemy", "onnxruntime"),
        ),
        ("import serving.service", (*TRAINING, "alembic")),
        ("import fraud_pipeline.settings", (*TRAINING, "numba", "numpy", "pyarrow", "sqlalchemy")),
    ],
)
def test_what_an_import_does_not_load(statement: str, forbidden: tuple[str, ...]) -> None:
    assert loaded_by(statement, forbidden) == set()


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(path for package in PACKAGES for path in package.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text())


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that the source imports, at the top or inside a function; `from a import b` counts as a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


ENTRY_POINTS = (
    "fraud_pipeline.defs",
    "fraud_pipeline.commands",
    "fraud_pipeline.cli",
    "fraud_pipeline.definitions",
    "fraud_pipeline.pipeline_run",
    "fraud_pipeline.policies",
    "fraud_pipeline.dagster_home",
    "serving",
    "streaming",
)
MAY_NOT_IMPORT = {
    "fraud_pipeline.domain": ("fraud_pipeline.adapters", "fraud_pipeline.settings", *ENTRY_POINTS),
    "fraud_pipeline.adapters": ("fraud_pipeline.settings", *ENTRY_POINTS),
    "fraud_pipeline.defs": ("fraud_pipeline.commands", "fraud_pipeline.cli"),
    "fraud_pipeline.commands": ("fraud_pipeline.defs", "fraud_pipeline.definitions", "fraud_pipeline.cli"),
    "fraud_pipeline.errors": ("fraud_pipeline",),
    "fraud_pipeline": ("serving", "streaming"),
    "serving": tuple(entry for entry in ENTRY_POINTS if entry != "serving"),
    "streaming": tuple(entry for entry in ENTRY_POINTS if entry != "streaming"),
}


@pytest.mark.parametrize("layer", MAY_NOT_IMPORT)
def test_imports_point_one_way(layer: str) -> None:
    broken = [
        f"{module} imports {imported}"
        for module, tree in modules()
        if within(module, layer)
        for imported in imports(tree)
        if within(imported, *MAY_NOT_IMPORT[layer])
    ]
    assert not broken


def test_dagster_is_imported_only_by_the_code_location() -> None:
    elsewhere = [
        module
        for module, tree in modules()
        if not within(module, "fraud_pipeline.defs", "fraud_pipeline.definitions")
        and any(within(imported, "dagster", "dagster_mlflow", "dagster_shared") for imported in imports(tree))
    ]
    assert elsewhere == []


OUTSIDE = (
    "sqlalchemy",
    "mlflow",
    "fsspec",
    "great_expectations",
    "evidently",
    "requests",
    "urllib.request",
    "socket",
    "subprocess",
    "logging",
    "structlog",
)
CLOCKS = {
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.sleep",
}
ENVIRONMENT = {"os.environ", "os.getenv"}
FILES_ALLOWED = {
    "fraud_pipeline.domain.bundle": "a bundle is a directory; load and save are its contract",
    "fraud_pipeline.domain.bundle_files": "the files of that directory",
    "fraud_pipeline.domain.kernel_cache": "numba's cache folder is chosen before anything is compiled",
}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def impurities(tree: ast.Module) -> Iterator[str]:
    yield from (imported for imported in imports(tree) if within(imported, *OUTSIDE))
    for node in ast.walk(tree):
        name = dotted(node)
        if name in CLOCKS | ENVIRONMENT:
            yield name
        if isinstance(node, ast.Call) and (
            dotted(node.func) == "open"
            or dotted(node.func).rpartition(".")[2] in {"read_text", "write_text", "read_bytes", "write_bytes", "mkdir"}
        ):
            yield f"{dotted(node.func)}()"


def test_the_domain_has_no_clock_environment_network_or_files() -> None:
    broken = {
        module: found
        for module, tree in modules()
        if within(module, "fraud_pipeline.domain")
        and module not in FILES_ALLOWED
        and (found := sorted(set(impurities(tree))))
    }
    assert broken == {}


def test_the_purity_check_can_fail() -> None:
    sample = "import mlflow\nfrom datetime import datetime\nimport os\nnow = datetime.now()\nhome = os.environ['HOME']\nopen('x')\n"
    assert sorted(set(impurities(ast.parse(sample)))) == ["datetime.now", "mlflow", "open()", "os.environ"]


def test_nobody_prints_but_the_command_line() -> None:
    printing = [
        module
        for module, tree in modules()
        if not within(module, "fraud_pipeline.commands", "fraud_pipeline.cli")
        and any(isinstance(node, ast.Call) and dotted(node.func) == "print" for node in ast.walk(tree))
    ]
    assert printing == []
