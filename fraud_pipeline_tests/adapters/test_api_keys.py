from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic import command

from fraud_pipeline.adapters.api_keys import SCOPES, ApiKey, hash_secret, verify_among
from fraud_pipeline.adapters.cached_keys import CachedKeys
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_database import LedgerDatabase, alembic_config
from fraud_pipeline.errors import DependencyError, InputError, NotFound
from fraud_pipeline_tests.key_stores import key_store

NOW = datetime(2026, 3, 1, 12, 30, 15, 123_456, tzinfo=UTC)


def test_a_key_is_verified_by_its_plain_form_and_nothing_near_it(ledger_url: str) -> None:
    with key_store(ledger_url) as store:
        made, plain = store.create("payment gateway", ["read", "score"], now=NOW)
        other, _ = store.create("analyst", ["label"], now=NOW + timedelta(seconds=1))
        assert plain.startswith(f"fp_{made.key_id}_")
        found = store.verify(plain)
        assert found == made
        assert (made.name, made.granted, made.created_at, made.active) == (
            "payment gateway",
            ("score", "read"),
            NOW,
            True,
        )
        swapped = plain.replace(made.key_id, other.key_id)
        last = "A" if plain[-1] != "A" else "B"
        for wrong in (
            swapped,
            plain[:-1] + last,
            plain[:-1],
            plain + "A",
            plain.upper(),
            plain[3:],
            " " + plain,
            "",
            "fp_",
        ):
            assert store.verify(wrong) is None, wrong
        for hostile in (f"fp_\x00{plain[4:]}", f"fp_é{plain[4:]}", f"fp_\ud800{plain[4:]}", plain[:-1] + "\ud800"):
            assert store.verify(hostile) is None


def test_a_revoked_key_is_wrong_for_ever_and_stays_in_the_list(ledger_url: str) -> None:
    with key_store(ledger_url) as store:
        first, plain = store.create("gateway", ["score"], now=NOW)
        second, other = store.create("gateway", ["score"], now=NOW + timedelta(days=1))
        assert store.any_active()
        revoked = store.revoke(first.key_id, now=NOW + timedelta(days=2))
        assert revoked.revoked_at == NOW + timedelta(days=2)
        assert store.revoke(first.key_id, now=NOW + timedelta(days=3)) == revoked
        assert store.verify(plain) is None
        assert store.verify(other) == second
        store.revoke(second.key_id, now=NOW + timedelta(days=2))
        assert not store.any_active()
        assert [(k.key_id, k.active) for k in store.list()] == [(first.key_id, False), (second.key_id, False)]


def test_an_unknown_id_cannot_be_revoked(ledger_url: str) -> None:
    with key_store(ledger_url) as store, pytest.raises(NotFound, match="no API key 'abc'"):
        store.revoke("abc", now=NOW)


def test_the_secret_is_nowhere_in_the_database_and_not_in_what_is_shown(ledger_url: str) -> None:
    with key_store(ledger_url) as store:
        made, plain = store.create("gateway", ["admin"], now=NOW)
        secret = plain.removeprefix(f"fp_{made.key_id}_")
        with store._database.reading() as connection:
            row = connection.execute(sa.text("SELECT * FROM api_keys")).mappings().one()
    assert set(row) == {"key_id", "name", "hash", "scopes", "created_at", "revoked_at"}
    assert secret not in str(dict(row))
    assert row["hash"] == hash_secret(secret)
    assert len(secret) == 43
    assert row["hash"] not in repr(made)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 65, "\ud800"])
def test_a_key_needs_a_name_that_can_be_read(name: str, tmp_path) -> None:
    with key_store(f"sqlite:///{tmp_path / 'l.db'}") as store:
        with pytest.raises(InputError, match="is no name for a key"):
            store.create(name, ["score"], now=NOW)
        assert store.list() == ()


def test_a_key_needs_scopes_that_exist(tmp_path) -> None:
    with key_store(f"sqlite:///{tmp_path / 'l.db'}") as store:
        with pytest.raises(InputError, match="A key without a scope opens nothing"):
            store.create("x", [], now=NOW)
        with pytest.raises(InputError, match="There is no scope 'root', 'write'") as caught:
            store.create("x", ["write", "score", "root"], now=NOW)
        assert caught.value.remedy == "Scopes are score, label, read, admin."


def test_admin_includes_every_scope_and_no_other_word() -> None:
    admin = ApiKey("0" * 12, "a", ("admin",), NOW, None, "")
    assert all(admin.allows(scope) for scope in SCOPES)
    assert not admin.allows("root")
    reader = ApiKey("0" * 12, "r", ("read",), NOW, None, "")
    assert [scope for scope in SCOPES if reader.allows(scope)] == ["read"]


def test_every_key_is_another() -> None:
    assert hash_secret("a") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert verify_among({}, "fp_" + "0" * 12 + "_" + "s" * 43) is None


def test_a_ledger_of_before_the_keys_gets_their_table_and_keeps_its_rows(ledger_url: str) -> None:
    database = LedgerDatabase(ledger_url)
    with database.writing() as connection:
        command.upgrade(alembic_config(connection), "0001")
        connection.execute(sa.text("INSERT INTO writers (writer, last_sequence) VALUES ('local', 7)"))
    with key_store(ledger_url) as store:
        store.create("gateway", ["score"], now=NOW)
    with database.reading() as connection:
        assert connection.execute(sa.text("SELECT last_sequence FROM writers")).scalar_one() == 7
    database.close()
    with Ledger.open(ledger_url) as ledger:
        assert ledger.promotions() == []


# In memory


class Source:
    """A table of keys that can be away."""

    def __init__(self, *keys: ApiKey) -> None:
        self.keys = list(keys)
        self.away = False
        self.reads = 0
        self.read = threading.Event()

    def load(self) -> list[ApiKey]:
        self.reads += 1
        self.read.set()
        if self.away:
            raise DependencyError("The ledger does not answer.", remedy="Start it.")
        return list(self.keys)


def a_key(*, revoked: bool = False) -> tuple[ApiKey, str]:
    key = ApiKey("0" * 12, "gateway", ("score",), NOW, NOW if revoked else None, hash_secret("s" * 43))
    return key, "fp_" + "0" * 12 + "_" + "s" * 43


def wait_until(condition, *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_requests_read_memory_and_only_a_refresh_reads_the_table() -> None:
    key, plain = a_key()
    source = Source(key)
    cache = CachedKeys(source.load)
    cache.refresh()
    assert [cache.verify(plain) for _ in range(100)] == [key] * 100
    assert (cache.any_active(), cache.any_made(), source.reads) == (True, True, 1)


def test_a_revoked_key_stops_working_within_two_seconds_and_a_new_one_starts(ledger_url: str) -> None:
    with key_store(ledger_url) as store:
        made, plain = store.create("gateway", ["score"], now=NOW)
        with CachedKeys(store.list) as cache:
            assert cache.verify(plain) == made
            store.revoke(made.key_id, now=NOW)
            _, other = store.create("gateway", ["score"], now=NOW)
            started = time.monotonic()
            wait_until(lambda: cache.verify(plain) is None and cache.verify(other) is not None)
            assert time.monotonic() - started < 2.0
        assert cache._thread is not None
        assert not cache._thread.is_alive()


def test_known_keys_stay_valid_while_the_table_is_away_which_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    key, plain = a_key()
    source = Source(key)
    cache = CachedKeys(source.load)
    cache.refresh()
    source.away = True
    for _ in range(3):
        cache.refresh()
    assert cache.verify(plain) == key
    assert [r.getMessage() for r in caplog.records] == [
        "API keys cannot be read; those read before stay valid: The ledger does not answer. Start it."
    ]
    source.away, source.keys = False, [a_key(revoked=True)[0]]
    cache.refresh()
    assert cache.verify(plain) is None
    assert (cache.any_active(), cache.any_made()) == (False, True)
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]


def test_keys_never_read_are_not_taken_for_no_keys() -> None:
    source = Source()
    source.away = True
    with CachedKeys(source.load, interval_s=0.01) as cache:
        with pytest.raises(DependencyError, match="API keys cannot be read"):
            cache.any_made()
        with pytest.raises(DependencyError):
            cache.verify("fp_x")
        source.away = False
        source.read.clear()

        def is_read() -> bool:
            try:
                return cache.any_made() is False
            except DependencyError:
                return False

        wait_until(is_read)


def test_whatever_the_table_does_the_refresher_goes_on() -> None:
    key, plain = a_key()
    failures = iter([ValueError("nonsense"), MemoryError()])

    def load() -> list[ApiKey]:
        for failure in failures:
            raise failure
        return [key]

    with CachedKeys(load, interval_s=0.01) as cache:

        def works() -> bool:
            try:
                return cache.verify(plain) == key
            except DependencyError:
                return False

        wait_until(works)
