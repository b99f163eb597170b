"""The documentation does not lie: links lead somewhere, and commands, targets and settings that it names exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fraud_pipeline import cli
from fraud_pipeline.settings import Settings, is_known

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
READ_BY_TESTS = {"FRAUD_SHARED_DATA"}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def code(page: Path) -> str:
    return "\n".join(CODE.findall(page.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    targets = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text())]
    missing = [link for link in targets if link and "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    app: Any = cli.app
    top = {command.name or command.callback.__name__ for command in app.registered_commands}
    groups = {
        group.name: {command.name or command.callback.__name__ for command in group.typer_instance.registered_commands}
        for group in app.registered_groups
    }
    for first, second in re.findall(r"(?:^|[`\s])fraud ([a-z][a-z-]*)(?: ([a-z-]+))?", code(page), re.MULTILINE):
        assert first in top | set(groups), f"fraud {first}"
        if first in groups and second:
            assert second.split("|")[0] in groups[first], f"fraud {first} {second}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_exist(page: Path) -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "fraud_pipeline" / "commands").glob("*.py"))
    known = set(re.findall(r'"(--[a-z-]+)"', source)) | {
        f"--{name.replace('_', '-')}" for name in re.findall(r"^    ([a-z_]+): ", source, re.MULTILINE)
    }
    for line in re.findall(r"fraud [a-z][^\n`#]*", code(page)):
        unknown = set(re.findall(r"(?<=\s)--[a-z-]+", line)) - known - {"--help", "--debug"}
        assert not unknown, line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for line in re.findall(r"(?:^|`)make ((?:[a-z-]+ ?)+)", code(page), re.MULTILINE)
        for target in line.split()
    }
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_settings_exist(page: Path) -> None:
    named = set(re.findall(r"FRAUD_[A-Z_]*[A-Z]", page.read_text())) - READ_BY_TESTS
    assert {name for name in named if not is_known(name)} == {"FRAUD_KAFKA"} & named, (
        "but for the pattern FRAUD_KAFKA_<NAME>"
    )


def test_every_setting_is_read_by_something() -> None:
    folders = (ROOT / "fraud_pipeline", ROOT / "serving")
    sources = [path for folder in folders for path in folder.rglob("*.py") if not path.name.startswith("settings")]
    text = "\n".join(path.read_text() for path in sources)
    unread = [name for name in Settings.model_fields if not re.search(rf"\b(settings|self|loaded)\.{name}\b", text)]
    assert unread == []


def test_the_locks_hold_versions_and_no_addresses() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        for line in lock.read_text().splitlines():
            assert re.fullmatch(r"[a-z0-9.-]+==[A-Za-z0-9.+!]+( ; .+)?", line), f"{lock.name}: {line}"


def pins(name: str) -> set[str]:
    """`package==version`, without the marker: the same package may be needed on fewer systems by fewer extras."""
    return {line.split(" ;")[0] for line in (ROOT / "requirements" / name).read_text().splitlines()}


def test_the_locks_agree() -> None:
    assert pins("base.txt") <= pins("pipeline.txt") <= pins("dev.txt")


def test_every_direct_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {
        "base.txt": project["dependencies"],
        "dev.txt": [d for extra in project["optional-dependencies"].values() for d in extra],
    }
    for lock, wanted in locked.items():
        names = {line.split("==")[0] for line in pins(lock)}
        assert {re.split(r"[\[<>=]", requirement)[0] for requirement in wanted} <= names


def test_the_scoring_lock_is_lean() -> None:
    heavy = {"dagster", "mlflow", "pandas", "scikit-learn", "xgboost", "evidently", "great-expectations", "matplotlib"}
    assert not heavy & {line.split("==")[0] for line in pins("base.txt")}


def test_no_page_names_a_registry_or_a_machine_path() -> None:
    hosts = r"(pypi|maven|npmjs|crates|proxy\.golang)[a-z0-9.-]*\.(org|io|com)"
    tracked = [
        *PAGES,
        *ROOT.glob("*.toml"),
        ROOT / "Makefile",
        ROOT / ".ci" / "run",
        *(ROOT / "requirements").glob("*.txt"),
    ]
    tracked += [
        path
        for folder in ("fraud_pipeline", "fraud_pipeline_tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    ]
    named = [
        name_of(path)
        for path in tracked
        if path != Path(__file__) and re.search(rf"{hosts}|/work/(main|shared)|/root/", path.read_text())
    ]
    assert named == []
