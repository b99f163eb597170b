from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fraud_pipeline import cli
from fraud_pipeline_tests.key_stores import key_store

Capture = pytest.CaptureFixture[str]


def said(capsys: Capture, *line: str, code: int = 0) -> Any:
    assert cli.run(["keys", *line, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_a_key_is_shown_once_and_works(home: Path, capsys: Capture) -> None:
    made = said(capsys, "create", "payment gateway", "--scope", "score", "--scope", "read")
    assert made["scopes"] == ["score", "read"]
    with key_store(f"sqlite:///{home / 'ledger.db'}") as store:
        found = store.verify(made["key"])
        assert found is not None
        assert (found.key_id, found.name, found.created_at.isoformat()) == (
            made["key_id"],
            "payment gateway",
            made["created_at"],
        )
    secret = made["key"].rpartition("_")[2]
    assert cli.run(["keys", "list"]) == 0
    table = capsys.readouterr().out
    assert made["key_id"] in table
    assert "payment gateway" in table
    assert secret not in table
    assert secret not in json.dumps(said(capsys, "list"))


def test_the_table_of_a_new_key_has_the_whole_key_on_one_line(home: Path, capsys: Capture) -> None:
    assert cli.run(["keys", "create", "gateway", "--scope", "admin"]) == 0
    answer = capsys.readouterr()
    (line,) = [line for line in answer.out.splitlines() if line.startswith("key")]
    with key_store(f"sqlite:///{home / 'ledger.db'}") as store:
        assert store.verify(line.split()[1]) is not None
    assert "cannot be shown again" in answer.err


def test_a_revoked_key_is_listed_as_such(home: Path, capsys: Capture) -> None:
    made = said(capsys, "create", "gateway", "--scope", "score")
    revoked = said(capsys, "revoke", made["key_id"])
    assert (revoked["active"], revoked["key_id"]) == (False, made["key_id"])
    assert said(capsys, "list")["keys"] == [revoked]


def test_looking_at_no_keys_makes_nothing(home: Path, capsys: Capture) -> None:
    assert said(capsys, "list") == {"keys": []}
    assert not list(home.iterdir())
    assert cli.run(["keys", "list"]) == 0
    assert "`fraud keys create NAME --scope score` makes one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["create", "gateway"], "Missing option '--scope'"),
        (["create", "gateway", "--scope", "root"], "There is no scope 'root'. Scopes are score, label, read, admin."),
        (["create", "", "--scope", "score"], "is no name for a key"),
        (["revoke", "nobody"], "There is no API key 'nobody'. `fraud keys list` shows the ids."),
    ],
)
def test_what_cannot_be_done_is_bad_input(home: Path, capsys: Capture, line: list[str], words: str) -> None:
    assert cli.run(["keys", *line]) == 2
    assert words in capsys.readouterr().err


def test_an_absent_database_is_another_exit_code(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("FRAUD_LEDGER_URL", "postgresql://fraud:s3cret@127.0.0.1:9/fraud")
    assert cli.run(["keys", "list"]) == 3
    answer = capsys.readouterr().err
    assert "does not answer" in answer
    assert "s3cret" not in answer


def test_importing_the_commands_loads_no_database() -> None:
    program = (
        "import sys, fraud_pipeline.commands.keys; assert not {'sqlalchemy', 'pydantic', 'orjson'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
