"""`fraud backup` and `fraud restore`: whole or not at all, under writes, and what decided before decides the same after."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from fraud_pipeline.adapters.backup_manifest import NAME, read_manifest
from fraud_pipeline.adapters.database_server import DatabaseServer
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_records import LedgerEntry
from fraud_pipeline.adapters.ledger_schema import metadata
from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline.adapters.model_registry import ModelRegistry
from fraud_pipeline.adapters.model_slot import local_bundle
from fraud_pipeline.adapters.table_copy import count_rows
from fraud_pipeline.backup import MARKER, BackupReport, back_up, restore
from fraud_pipeline.cli import run
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import decide
from fraud_pipeline.domain.transaction import Label
from fraud_pipeline.errors import InputError, IntegrityError, NotFound
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.bundles import write_bundle
from fraud_pipeline_tests.decided_homes import PAYMENTS, decided_home, states_of
from fraud_pipeline_tests.serving.home import live_payments

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WAIT_S = 60.0


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home that has decided; read by all tests, written by none."""
    return decided_home(tmp_path_factory.mktemp("decided") / "home")


def saved(settings: Settings, to: Path) -> BackupReport:
    return back_up(settings, str(to), now=NOW)


def decisions_of(settings: Settings) -> list[str]:
    """The next payments, decided by the champion of this home with the state that it recovers: every byte but the clock's."""
    with Ledger.open(settings.ledger_url) as ledger:
        promotion = ledger.current_promotion()
        assert promotion is not None
        path = local_bundle(settings.bundles_dir, promotion.version, promotion.fingerprint)
        assert path is not None
        bundle = ModelBundle.load(path, version=str(promotion.version))
        live = states_of(settings, ledger).recover()
        found = []
        for payment in live_payments(30, first=PAYMENTS):
            given = decide(live.state, bundle, payment, decided_at=payment.event_time)
            live.state.update(payment)
            found.append(json.dumps({**given.as_dict(), "processing_time_ms": 0}, default=str, sort_keys=True))
    return found


def rows_of(url: str) -> dict[str, int]:
    database = LedgerDatabase(url)
    try:
        with database.reading() as connection:
            return count_rows(connection, metadata)
    finally:
        database.close()


def fresh_ledger(postgres: PostgresServer) -> str:
    name = f"restored_{uuid4().hex[:8]}"
    DatabaseServer(postgres.address).create_missing(name)
    return postgres.address.rsplit("/", 1)[0] + f"/{name}"


def test_what_is_restored_decides_as_before(decided: Settings, tmp_path: Path) -> None:
    report = saved(decided, tmp_path / "backup")
    assert report.ledger == rows_of(decided.ledger_url)
    assert report.ledger["decisions"] == PAYMENTS
    other = Settings(home=tmp_path / "other")
    assert restore(other, str(tmp_path / "backup")).identity == report.identity
    assert rows_of(other.ledger_url) == report.ledger
    assert decisions_of(other) == decisions_of(decided)
    assert not (other.home / MARKER).exists()


def test_sqlite_becomes_postgresql_and_sqlite_again(
    decided: Settings, postgres: PostgresServer, tmp_path: Path
) -> None:
    saved(decided, tmp_path / "one")
    served = Settings(home=tmp_path / "served", ledger_url=fresh_ledger(postgres))
    restore(served, str(tmp_path / "one"))
    expected = decisions_of(decided)
    assert decisions_of(served) == expected
    with Ledger.open(served.ledger_url) as ledger:  # numbers that the database gives go on
        ledger.record_labels([Label("live-3", True, "analyst", "bob", NOW + timedelta(days=1))])
    report = saved(served, tmp_path / "two")
    back = Settings(home=tmp_path / "back")
    restore(back, str(tmp_path / "two"))
    assert rows_of(back.ledger_url) == report.ledger == rows_of(served.ledger_url)
    with Ledger.open(back.ledger_url) as ledger, Ledger.open(decided.ledger_url) as before:
        for payment in live_payments(PAYMENTS):
            stored = ledger.decision(payment.transaction_id)
            assert stored is not None
            assert stored == before.decision(payment.transaction_id)
    assert rows_of(back.ledger_url)["labels"] == rows_of(decided.ledger_url)["labels"] + 1


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_backup_under_writes_is_of_one_moment(
    decided: Settings, postgres: PostgresServer, tmp_path: Path, kind: str
) -> None:
    """A payment and its decision are one transaction: no backup has one without the other, and its log has no gap."""
    home = tmp_path / "home"
    shutil.copytree(decided.home, home)
    settings = Settings(home=home)
    if kind == "postgres":
        saved(settings, tmp_path / "seed")
        settings = Settings(home=tmp_path / "served", ledger_url=fresh_ledger(postgres))
        restore(settings, str(tmp_path / "seed"))
    stop, written = threading.Event(), threading.Event()

    def write() -> None:
        with Ledger.open(settings.ledger_url) as ledger:
            for number, payment in enumerate(live_payments(100_000, first=1_000)):
                record = ledger.decision("live-7")
                assert record is not None
                record = replace(record, transaction_id=payment.transaction_id)
                ledger.append([LedgerEntry(payment, payment.event_time, decision=record)])
                if number == 20:
                    written.set()
                if stop.is_set():
                    return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert written.wait(WAIT_S)
        before = rows_of(settings.ledger_url)["transactions"]
        report = saved(settings, tmp_path / "backup")
        after = rows_of(settings.ledger_url)["transactions"]
    finally:
        stop.set()
        writer.join()
    assert before <= report.ledger["transactions"] <= after
    assert after > before, "it was written to meanwhile"
    other = Settings(home=tmp_path / "other")
    restore(other, str(tmp_path / "backup"))
    with Ledger.open(other.ledger_url) as ledger:
        places = [event.sequence for event in ledger.read_log()]
        assert places == list(range(1, len(places) + 1))
        payments = [event.transaction for event in ledger.read_log() if event.transaction is not None]
        assert len(payments) == report.ledger["transactions"] == report.ledger["decisions"]
        assert all(ledger.decision(payment.transaction_id) for payment in payments[-40:])


def test_the_registry_travels_from_a_database_to_another_place(tmp_path: Path) -> None:
    """Runs, versions, tags, aliases and the bundles' own bytes; locations are the new place's."""
    settings = Settings(home=tmp_path / "home")
    bundle = write_bundle(tmp_path / "made")
    registry = ModelRegistry.open(
        settings.mlflow_tracking_uri, artifact_root=settings.artifacts_dir, cache_dir=settings.bundles_dir
    )
    version = registry.register(bundle, tags={"why": "a test"})
    registry.set_alias("champion", version.version)
    saved(settings, tmp_path / "backup")
    shutil.rmtree(settings.home)  # nothing of the old place may be needed

    other = Settings(home=tmp_path / "other")
    restore(other, str(tmp_path / "backup"))
    again = ModelRegistry.open(
        other.mlflow_tracking_uri, artifact_root=other.artifacts_dir, cache_dir=tmp_path / "cache"
    )
    found = again.champion()
    assert found is not None
    assert (found.version, found.fingerprint, found.tags["why"]) == (version.version, version.fingerprint, "a test")
    fetched = again.fetch(found.version)
    assert ModelBundle.load(fetched, version="1").fingerprint == version.fingerprint
    with pytest.raises(InputError, match=r"has bundles already|has runs already|checkpoints"):
        restore(other, str(tmp_path / "backup"))


def test_a_backup_is_not_written_over_another(decided: Settings, tmp_path: Path) -> None:
    saved(decided, tmp_path / "backup")
    with pytest.raises(InputError, match="is not empty"):
        saved(decided, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["backup"], "nothing half made is left"


def test_a_target_that_holds_something_is_left_alone(
    decided: Settings, postgres: PostgresServer, tmp_path: Path
) -> None:
    saved(decided, tmp_path / "backup")
    with pytest.raises(InputError, match=r"The home .* has source already"):
        restore(decided, str(tmp_path / "backup"))
    filled = Settings(home=tmp_path / "filled", ledger_url=fresh_ledger(postgres))
    with Ledger.open(filled.ledger_url) as ledger:
        ledger.append([LedgerEntry(live_payments(1)[0], NOW, decision=None)])
    with pytest.raises(InputError, match=r"The ledger .* has rows already, in transactions, writers"):
        restore(filled, str(tmp_path / "backup"))
    assert not filled.home.exists(), "nothing was begun"


def test_damage_is_found_before_anything_is_written(decided: Settings, tmp_path: Path) -> None:
    saved(decided, tmp_path / "backup")
    other = Settings(home=tmp_path / "other")
    victim = tmp_path / "backup" / "ledger.db"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=r"ledger\.db in the backup is not what was written"):
        restore(other, str(tmp_path / "backup"))
    victim.unlink()
    with pytest.raises(IntegrityError, match=r"The backup lacks ledger\.db"):
        restore(other, str(tmp_path / "backup"))
    (tmp_path / "backup" / NAME).unlink()
    with pytest.raises(NotFound, match=r"is no backup: it has no manifest\.json"):
        restore(other, str(tmp_path / "backup"))
    assert not other.home.exists()


def test_a_kill_half_way_leaves_no_backup(decided: Settings, tmp_path: Path) -> None:
    """The process is killed once files of the backup are there; what is left is no backup, and the next one succeeds."""
    settings = tmp_path / "home"
    shutil.copytree(decided.home, settings)
    victim = subprocess.Popen(
        [sys.executable, "-m", "fraud_pipeline.cli", "backup", str(tmp_path / "kept" / "backup")],
        env={**os.environ, "FRAUD_HOME": str(settings)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert victim.stderr is not None
    for line in victim.stderr:  # the stage that is begun is said first
        if line.startswith("home"):
            break
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stderr.close()
    if not (tmp_path / "kept" / "backup").exists():  # else it was quicker than the signal
        with pytest.raises(NotFound):
            read_manifest(tmp_path / "kept" / "backup")
    else:
        read_manifest(tmp_path / "kept" / "backup")
    report = saved(Settings(home=settings), tmp_path / "kept" / "next")
    assert read_manifest(tmp_path / "kept" / "next").identity == report.identity


def test_a_restore_that_was_cut_off_goes_on(decided: Settings, tmp_path: Path) -> None:
    saved(decided, tmp_path / "backup")
    other = Settings(home=tmp_path / "other")
    restore(other, str(tmp_path / "backup"))
    manifest = read_manifest(tmp_path / "backup")
    # As a kill after the ledger's commit leaves it: everything is there, and the last step is not ticked off.
    done = ["home", "checkpoints", "registry"]
    (other.home / MARKER).write_text(json.dumps({"backup": manifest.identity, "done": done}))
    before = rows_of(other.ledger_url)
    restore(other, str(tmp_path / "backup"))
    assert rows_of(other.ledger_url) == before
    (other.home / MARKER).write_text(json.dumps({"backup": "another", "done": []}))
    with pytest.raises(InputError, match=r"Another backup's restore into .* was cut off"):
        restore(other, str(tmp_path / "backup"))


def test_by_command_and_to_an_address(
    decided: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`memory://` stands for any store that fsspec reaches."""
    monkeypatch.setenv("FRAUD_HOME", str(decided.home))
    address = f"memory://backups/{uuid4().hex}"
    assert run(["backup", address, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["ledger"]["decisions"] == PAYMENTS
    monkeypatch.setenv("FRAUD_HOME", str(tmp_path / "other"))
    assert run(["restore", address]) == 0
    assert f"Backup {made['identity']} of" in capsys.readouterr().err
    assert decisions_of(Settings(home=tmp_path / "other")) == decisions_of(decided)
    assert run(["restore", address]) == 2
    assert "already" in capsys.readouterr().err
