"""What the Dockerfile, its locks, .dockerignore and the compose file say of each other. `make stack-test` builds and runs them."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}
TRAINING = {
    "dagster",
    "dagster-webserver",
    "mlflow",
    "pandas",
    "scikit-learn",
    "xgboost",
    "evidently",
    "great-expectations",
}


def stages() -> dict[str, str]:
    """Name -> its lines."""
    parts = re.split(r"^FROM \S+ AS (\w[\w-]*)\n", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def pins(lock: str) -> dict[str, set[str]]:
    """Package -> its versions (more than one where they differ by Python)."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / lock).read_text().splitlines():
        name, version = re.fullmatch(r"([\w.-]+)==(\S+)(?: ;.*)?", line).groups()  # type: ignore[union-attr]
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize("service", sorted(OURS))
def test_what_compose_builds_is_a_stage_and_runs_as_its_account(service: str) -> None:
    build = OURS[service]["build"]
    assert "USER fraud" in stages()[build["target"]]
    assert OURS[service]["image"].startswith(f"fraud-pipeline/{build['target']}:")
    assert OURS[service]["user"] == "10001:10001"
    assert "--uid 10001 --gid fraud" in stages()["base"]


def test_every_volume_of_ours_is_mounted_on_a_folder_that_the_images_give_to_the_account() -> None:
    mounted = {volume.split(":")[1] for service in OURS.values() for volume in service.get("volumes", ())}
    made = stages()["base"].partition("install --directory --owner=fraud --group=fraud ")[2].splitlines()[0].split()
    assert mounted <= set(made)


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE)
        for source in line.split()[:-1]
    ]
    let_through = [line[2:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!/")]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, rule) or source.startswith(f"{rule}/") for rule in let_through), source


def test_nothing_personal_can_get_into_an_image() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert not any(
        fnmatch(name, rule[2:]) for name in (".env", ".fraud", ".git", ".venv") for rule in rules if rule[0] == "!"
    )


@pytest.mark.parametrize("lock", ["stream.txt", "serving.txt", "mlflow.txt", "pipeline.txt", "base.txt"])
def test_an_images_pins_are_those_that_are_tested(lock: str) -> None:
    tested = pins("dev.txt")
    assert {name: versions for name, versions in pins(lock).items() if not versions <= tested[name]} == {}


def test_what_scores_carries_nothing_that_trains() -> None:
    assert TRAINING & pins("stream.txt").keys() == set()
    assert TRAINING & pins("serving.txt").keys() == set()
    assert pins("stream.txt").keys() <= pins("serving.txt").keys()
    assert {"confluent-kafka", "redis", "psycopg"} <= pins("stream.txt").keys() & pins("pipeline.txt").keys()


def test_no_image_asks_the_builder_for_what_only_buildkit_has() -> None:
    assert (
        re.findall(
            r"^(?:RUN --mount|COPY --(?:chmod|exclude|parents|link)|# syntax=).*|<<EOF", DOCKERFILE, flags=re.MULTILINE
        )
        == []
    )
