"""The command line: one line per error with an exit code that says whose fault it is, and one JSON object per result."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from fraud_pipeline import cli
from fraud_pipeline.commands.output import rows_table, stages, text, to_json
from fraud_pipeline.errors import Busy, DatasetError, DependencyError, PromotionRefused

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("simulate", "--customers", "30", "--merchants", "20", "--days", "5", "--end", "2026-03-01")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A command `fail` that raises what the test puts into the list."""
    errors: list[BaseException] = []

    def fail() -> None:
        raise errors[0]

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(fail)
    app.command()(lambda: None)
    monkeypatch.setattr(cli, "app", app)
    return errors


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            DatasetError("a.csv is empty.", remedy="Give a file with rows."),
            2,
            "fraud: a.csv is empty. Give a file with rows.\n",
        ),
        (Busy("Another process trains.", remedy="Wait for it."), 2, "fraud: Another process trains. Wait for it.\n"),
        (PromotionRefused("Gate recall failed."), 2, "fraud: Gate recall failed.\n"),
        (DependencyError("The ledger does not answer."), 3, "fraud: The ledger does not answer.\n"),
        (DatasetError("two\nlines"), 2, "fraud: two lines\n"),
        (
            OSError(28, "No space left on device", "/data/x"),
            2,
            "fraud: No space left on device: /data/x. `fraud doctor` checks",
        ),
        (
            ModuleNotFoundError("No module named 'mlflow'", name="mlflow"),
            2,
            "fraud: this command needs mlflow, which is not installed",
        ),
        (KeyError("x"), 2, "fraud: unexpected KeyError: 'x'. Run it again with --debug for the traceback.\n"),
        (KeyboardInterrupt(), 130, "fraud: interrupted\n"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    failing.append(error)
    assert cli.run(["fail"]) == code
    said = capsys.readouterr()
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("line", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(failing: list[BaseException], line: list[str]) -> None:
    failing.append(DatasetError("broken"))
    with pytest.raises(DatasetError, match="broken"):
        cli.run(line)


@pytest.mark.parametrize(
    "line", [["nonsense"], ["simulate", "--customers", "many"], ["simulate", "--bogus"], ["import"], ["models", "show"]]
)
def test_a_line_that_cannot_be_understood_is_bad_input(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(line) == 2
    said = capsys.readouterr()
    assert said.err.startswith("fraud: ")
    assert said.err.count("\n") == 1


def test_a_broken_setting_stops_a_command_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRAUD_SEED", "-1")
    assert cli.run(["status"]) == 2
    assert "FRAUD_SEED='-1'" in capsys.readouterr().err


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    said = capsys.readouterr()
    assert "simulate" in said.out + said.err


def callbacks() -> dict[tuple[str, ...], Any]:
    """Every command of the real application with the function behind it, groups resolved."""
    app: Any = cli.app
    found: dict[tuple[str, ...], Any] = {(c.name or c.callback.__name__,): c.callback for c in app.registered_commands}
    for group in app.registered_groups:
        members = group.typer_instance.registered_commands
        found |= {(group.name, c.name or c.callback.__name__): c.callback for c in members}
    return found


def test_every_command_of_the_issue_is_there() -> None:
    wanted = {
        ("simulate",),
        ("import",),
        ("run",),
        ("status",),
        ("drift",),
        ("parity",),
        ("explain",),
        ("doctor",),
        ("export", "training-set"),
    }
    wanted |= {("models", name) for name in ("list", "show", "promote", "rollback", "compare", "rethreshold")}
    assert wanted <= set(callbacks())


@pytest.mark.parametrize("command", callbacks(), ids=" ".join)
def test_every_command_has_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*command, "--help"]) == 0
    said = capsys.readouterr().out
    assert "Usage: fraud" in said
    described = re.sub(r"\s+", " ", said.split("Usage:")[1].split("╭")[0])
    assert len(described) > 60, "a command says what it does"


def test_commands_that_print_a_result_take_json() -> None:
    without = {name for name, callback in callbacks().items() if "as_json" not in callback.__annotations__}
    assert without == {("dev",), ("serve",), ("score-stream",), ("sink",)}, (
        "only what runs until it is stopped has no result"
    )


def test_json_is_one_object_on_stdout_and_progress_goes_to_stderr(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*SMALL, "--json"]) == 0
    said = capsys.readouterr()
    world = json.loads(said.out)
    assert world["home"] == str(home)
    assert (world["start"], world["end"], world["unchanged"]) == ("2026-02-24", "2026-03-01", False)
    assert world["rows"] > 100
    assert "Simulating payments" in said.err


def test_the_same_simulation_again_changes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run([*SMALL, "--json"])
    first = json.loads(capsys.readouterr().out)
    files = {path: path.stat().st_mtime_ns for path in home.rglob("*.parquet")}
    assert cli.run([*SMALL, "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["unchanged"] is True
    assert second["fingerprint"] == first["fingerprint"]
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*.parquet")} == files


def test_another_world_in_the_same_home_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run([*SMALL])
    capsys.readouterr()
    assert cli.run([*SMALL, "--seed", "7"]) == 2
    assert "one home holds one world" in capsys.readouterr().err


def test_simulate_without_an_end_stops_at_midnight(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datetime import UTC, datetime

    before = datetime.now(UTC).date()
    assert cli.run(["simulate", "--customers", "30", "--merchants", "20", "--days", "3", "--json"]) == 0
    assert before.isoformat() <= json.loads(capsys.readouterr().out)["end"] <= datetime.now(UTC).date().isoformat()


def test_out_names_another_home(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*SMALL, "--out", str(tmp_path / "other"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["home"] == str(tmp_path / "other")
    assert (tmp_path / "other" / "source" / "manifest.json").exists()
    assert not list(home.iterdir())


def test_import_lands_a_file_and_says_what_it_rejected(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pay.csv"
    rows = [f"{n},2026-01-0{1 + n % 9}T10:00:00Z,c{n % 5},m{n % 3},{10 + n}.50" for n in range(200)]
    file.write_text("\n".join(["id,when,who,where,how_much", *rows, "200,2026-01-05T10:00:00Z,c1,m1,-4"]) + "\n")
    mapping = tmp_path / "mine.toml"
    mapping.write_text(MAPPING)
    assert cli.run(["import", str(file), "--mapping", str(mapping), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["accepted"], summary["rejected"]) == (201, 200, 1)
    assert sum(summary["reasons"].values()) == 1


def test_status_of_an_empty_home_makes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["world"], status["champion"], status["datasets"]["features"]["days"]) == (None, None, 0)
    assert not list(home.iterdir())


def test_settings_show_what_is_set_and_hide_passwords(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRAUD_LEDGER_URL", "postgresql+psycopg://fraud:s3cret@db/fraud")
    assert cli.run(["settings", "--json"]) == 0
    said = capsys.readouterr().out
    assert "s3cret" not in said
    shown = json.loads(said)
    assert shown["FRAUD_LEDGER_URL"] == {"value": "postgresql+psycopg://fraud:***@db/fraud", "origin": "set"}
    assert shown["FRAUD_CURRENCY"] == {"value": "USD", "origin": "default"}


def test_doctor_finds_a_healthy_machine(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is True
    assert {"python", "packages: core", "home", "world", "ledger", "mlflow", "checkpoints", "kernels"} <= {
        f["name"] for f in report["findings"]
    }
    assert not list(home.iterdir()), "looking makes nothing"


@pytest.mark.parametrize(
    ("variable", "value", "finding", "words"),
    [
        ("FRAUD_LEDGER_URL", "postgresql+psycopg://fraud:s3cret@127.0.0.1:9/fraud", "ledger", "Start the database"),
        ("FRAUD_LEDGER_URL", "nonsense://x", "ledger", "Correct FRAUD_LEDGER_URL"),
        ("FRAUD_MLFLOW_TRACKING_URI", "http://127.0.0.1:9", "mlflow", "Start it (`mlflow server`)"),
        ("FRAUD_CHECKPOINT_URL", "nonsense://x", "checkpoints", "Correct FRAUD_CHECKPOINT_URL"),
        ("FRAUD_SEED", "x", "settings", "fraud settings"),
    ],
)
def test_doctor_names_what_is_broken_and_how_to_mend_it(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    finding: str,
    words: str,
) -> None:
    monkeypatch.setenv(variable, value)
    assert cli.run(["doctor", "--json"]) == 2
    said = capsys.readouterr().out
    broken = [f for f in json.loads(said)["findings"] if f["status"] == "broken"]
    assert [f["name"] for f in broken] == [finding]
    assert words in broken[0]["remedy"]
    assert "s3cret" not in said


def test_doctor_suspects_a_mistyped_variable(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FRAUD_ALERT_BUGDET", "0.01")
    assert cli.run(["doctor", "--json"]) == 0
    notes = [f for f in json.loads(capsys.readouterr().out)["findings"] if f["name"] == "settings"]
    assert notes[0]["detail"].startswith("FRAUD_ALERT_BUGDET")
    assert notes[0]["remedy"] == "Did you mean FRAUD_ALERT_BUDGET?"


def test_doctor_finds_a_home_that_cannot_be_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("FRAUD_HOME", str(home / "file" / "home"))
    assert cli.run(["doctor", "--json"]) == 2
    broken = [f for f in json.loads(capsys.readouterr().out)["findings"] if f["status"] == "broken"]
    assert broken[0]["name"] == "home"


def test_the_ui_starts_only_where_the_code_location_is(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["dev"]) == 2
    assert "no workspace.yaml here" in capsys.readouterr().err


def test_an_unknown_model_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"versions": []}
    assert not list(home.iterdir()), "looking makes nothing"
    assert cli.run(["models", "show", "best"]) == 2
    assert "'best' is no version" in capsys.readouterr().err
    assert cli.run(["models", "show", "champion"]) == 2
    assert "There is no champion" in capsys.readouterr().err


def test_the_module_runs_as_a_program() -> None:
    line = [sys.executable, "-m", "fraud_pipeline.cli", "settings", "--json"]
    answer = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=os.environ, check=False, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert "FRAUD_HOME" in json.loads(answer.stdout)


def test_json_says_what_python_cannot() -> None:
    import numpy as np

    assert json.loads(
        to_json(
            {"nan": float("nan"), "array": np.array([1, 2]), "float": np.float32(0.5), "path": Path("a"), "set": {2, 1}}
        )
    ) == {
        "nan": None,
        "array": [1, 2],
        "float": 0.5,
        "path": "a",
        "set": [1, 2],
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (12345.678, "12,345.68"),
        ("[red]x", "\\[red]x"),
        ([1, 2], "1, 2"),
    ],
)
def test_values_are_shown_as_people_read_them(value: object, shown: str) -> None:
    assert text(value) == shown


def test_stages_are_a_line_each_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with stages() as report:
        for stage, done in [("features", 0), ("features", 1), ("training", 0), ("training", 2)]:
            report(stage, done, 2)
    said = capsys.readouterr()
    assert said.err == "features ...\ntraining ...\n"
    assert said.out == ""


def test_a_table_puts_numbers_to_the_right() -> None:
    table = rows_table(("name", "rows"), [("a", 1), ("b", None)])
    assert [column.justify for column in table.columns] == ["left", "right"]


MAPPING = """
name = "mine"
description = "a file of one's own"
transaction_id = "id"
customer_id = "who"
merchant_id = "where"
amount = "how_much"

[event_time]
column = "when"
zone = "UTC"
"""
