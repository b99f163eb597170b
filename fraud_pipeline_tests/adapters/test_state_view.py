"""The contract of the state view, held by a real Valkey and by the fake that other tests use."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import redis

from fraud_pipeline.adapters.claims import Claim, fingerprint_of
from fraud_pipeline.adapters.local_services.valkey_server import ValkeyServer
from fraud_pipeline.adapters.state_view import AT_ONCE, CLAIM_TTL_S, RECORD_TTL_S, StateView
from fraud_pipeline.adapters.state_view_reader import Asked, Seen, StateViewReader
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import DependencyError
from fraud_pipeline_tests.fake_state_view import FakeStateView, FakeStateViewReader, FakeViewServer
from fraud_pipeline_tests.servers import server_of_my_own

WRITER, OTHER = "transactions[3]", "transactions[4]"
PAYMENT = Transaction("t-1", datetime(2026, 1, 1, tzinfo=UTC), "ann", "shop", 1_000, country="DE")
MINE, THEIRS = Claim(fingerprint_of(PAYMENT), b"replica-1"), Claim(fingerprint_of(PAYMENT), b"replica-2")


@dataclass
class Rig:
    """One view, its two sides and how it loses its memory."""

    view: Any
    reader: Callable[[], Any]
    lose_everything: Callable[[], object]

    def read(
        self, customer: str = "ann", *, claim: Claim | None = None, identity: str = "t-1", writer: str = WRITER
    ) -> Seen:
        return self.read_many([Asked(customer, writer, identity, claim)])[0]

    def read_many(self, asked: list[Asked]) -> list[Seen]:
        return self.ask(lambda reader: reader.read(asked))

    def ask(self, question: Callable[[Any], Awaitable[Any]]) -> Any:
        async def work() -> Any:
            reader = self.reader()
            try:
                return await question(reader)
            finally:
                await reader.close()

        return asyncio.run(work())

    def filled(self, offset: int = 10, **records: bytes) -> Rig:
        """All customers of WRITER are there."""
        token = self.view.begin(WRITER)
        self.view.write_only(WRITER, offset, list(records.items()))
        assert self.view.complete(WRITER, token, offset)
        return self


@pytest.fixture(params=["valkey", "fake"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "fake":
        server = FakeViewServer()
        yield Rig(FakeStateView(server), lambda: FakeStateViewReader(server), server.lose_everything)
        return
    url, prefix = request.getfixturevalue("valkey").address, f"test-{uuid4().hex}"

    def lose_everything() -> None:
        with redis.Redis.from_url(url) as client:
            for key in client.scan_iter(f"{prefix}:*"):
                client.delete(key)

    with StateView(url, prefix=prefix) as view:
        yield Rig(view, lambda: StateViewReader(url, prefix=prefix), lose_everything)


def test_what_a_scorer_wrote_is_read_with_its_place(rig: Rig):
    rig.filled(ann=b"one")
    written = rig.view.write(WRITER, 20, [("ann", b"two"), ("bob", b"\x00\nthree")], since=10)
    assert (written.older, written.strangers, written.reach) == (0, 0, 20)
    assert rig.read("ann") == Seen(b"two", WRITER, 20, 20, None)
    assert rig.read("bob") == Seen(b"\x00\nthree", WRITER, 20, 20, None)
    assert rig.read("eve") == Seen(None, "", -1, 20, None)
    assert rig.read("eve", writer=OTHER).reach is None
    assert rig.view.reaches() == rig.ask(lambda reader: reader.reaches()) == {WRITER: 20}


def test_a_record_never_goes_back(rig: Rig):
    rig.filled(20, ann=b"new")
    late = rig.view.write(WRITER, 15, [("ann", b"old"), ("bob", b"first")], since=10)
    assert (late.older, late.reach) == (1, 20)
    assert rig.read("ann") == Seen(b"new", WRITER, 20, 20, None)
    assert rig.read("bob").record == b"first"
    again = rig.view.write(WRITER, 20, [("ann", b"new")], since=20)
    assert (again.older, again.reach) == (0, 20)


def test_a_customer_of_another_writer_is_counted(rig: Rig):
    rig.filled(100, ann=b"theirs")
    written = rig.view.write_only(OTHER, 5, [("ann", b"ours"), ("bob", b"ours")])
    assert (written.older, written.strangers, written.reach) == (0, 1, None)
    assert rig.read("ann") == Seen(b"ours", OTHER, 5, 100, None)


def test_a_batch_larger_than_one_script_arrives_whole(rig: Rig):
    rig.filled()
    many = [(f"c{number}", b"%d" % number) for number in range(2 * AT_ONCE + 1)]
    assert rig.view.write(WRITER, 30, many, since=10).reach == 30
    seen = rig.read_many([Asked(name, WRITER, "t-1") for name, _ in many])
    assert [each.record for each in seen] == [content for _, content in many]


def test_an_empty_batch_moves_the_reach(rig: Rig):
    rig.filled()
    assert rig.view.write(WRITER, 11, [], since=10).reach == 11


def test_after_the_loss_of_all_memory_the_view_says_so_until_everything_is_written(rig: Rig):
    rig.filled(ann=b"one", bob=b"one")
    rig.lose_everything()
    assert rig.read("ann") == Seen(None, "", -1, None, None)
    assert rig.view.write(WRITER, 20, [("ann", b"two")], since=10).reach is None
    assert rig.read("ann") == Seen(b"two", WRITER, 20, None, None)
    rig.filled(20, ann=b"two", bob=b"one")
    assert rig.read("bob") == Seen(b"one", WRITER, 20, 20, None)


def test_a_view_that_came_back_with_an_old_snapshot_is_not_taken_for_whole(rig: Rig):
    rig.filled(10, ann=b"one")
    assert rig.view.write(WRITER, 40, [("bob", b"two")], since=30).reach is None
    assert rig.read("ann").reach is None


def test_memory_lost_while_everything_is_written_is_noticed(rig: Rig):
    token = rig.view.begin(WRITER)
    rig.view.write_only(WRITER, 10, [("ann", b"one")])
    rig.lose_everything()
    assert not rig.view.complete(WRITER, token, 10)
    assert rig.view.reaches() == {}


def test_of_many_who_claim_an_id_at_once_one_gets_it(rig: Rig):
    claims = [Claim(MINE.fingerprint, b"replica-%d" % number) for number in range(20)]

    async def race(reader: Any) -> list[Seen]:
        found = await asyncio.gather(*(reader.read([Asked("ann", WRITER, "t-1", claim)]) for claim in claims))
        return [seen[0] for seen in found]

    seen = rig.ask(race)
    winners = [claim for claim, each in zip(claims, seen, strict=True) if each.claim is None]
    assert len(winners) == 1
    assert {each.claim for each in seen} == {None, winners[0]}


def test_the_same_claim_again_is_still_ours(rig: Rig):
    assert rig.read(claim=MINE).claim is None
    assert rig.read(claim=MINE).claim is None
    assert rig.read(claim=THEIRS).claim == MINE


def test_the_first_answer_stays(rig: Rig):
    assert rig.read(claim=MINE).claim is None
    mine, theirs = replace(MINE, answer=b'{"a":1}'), replace(THEIRS, answer=b'{"a":2}')
    assert rig.view.settle([("t-1", mine), ("t-2", mine)]) == [None, None]
    assert rig.view.settle([("t-1", mine)]) == [None]
    stored = replace(mine, holder=b"")
    assert rig.view.settle([("t-1", theirs), ("t-3", theirs)]) == [stored, None]
    assert rig.read(claim=THEIRS).claim == stored
    assert rig.ask(lambda reader: reader.claim_of("t-1")) == stored
    assert rig.ask(lambda reader: reader.claim_of("t-9")) is None
    assert rig.view.settle([]) == []


def test_a_claim_without_a_decision_can_be_given_up_by_its_holder_only(rig: Rig):
    rig.read(claim=MINE)
    rig.view.release([("t-1", THEIRS)])
    assert rig.read(claim=THEIRS).claim == MINE
    rig.view.release([("t-1", MINE)])
    assert rig.read(claim=THEIRS).claim is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount_minor": 1_001}, "amount_minor"),
        ({"country": None}, "country"),
        ({"attributes": {"x": 1.0}}, "attributes"),
    ],
)
def test_a_claim_tells_which_field_of_another_payment_differs(change: dict[str, Any], field: str):
    assert Claim.of(MINE.to_bytes()).differing(replace(PAYMENT, **change)) == (field,)
    assert MINE.differing(PAYMENT) == ()


def test_a_fake_that_is_away_fails_as_the_real_one_does():
    server = FakeViewServer()
    server.away = True
    with pytest.raises(DependencyError, match="does not answer"):
        FakeStateView(server).write(WRITER, 1, [], since=0)
    with pytest.raises(DependencyError, match="does not answer"):
        asyncio.run(FakeStateViewReader(server).read([]))


def test_memory_is_given_back_when_nobody_needs_it(valkey: ValkeyServer):
    prefix = f"test-{uuid4().hex}"
    with StateView(valkey.address, prefix=prefix) as view, redis.Redis.from_url(valkey.address) as client:
        rig = Rig(view, lambda: StateViewReader(valkey.address, prefix=prefix), lambda: None).filled(ann=b"one")
        rig.read(claim=MINE)
        assert RECORD_TTL_S - 5 <= client.ttl(view.keys.customer("ann")) <= RECORD_TTL_S
        assert 0 < client.ttl(view.keys.claim("t-1")) <= CLAIM_TTL_S
        assert client.ttl(view.keys.reach) == -1


def test_nobody_listening_is_said_at_once_with_the_address_and_not_asked_again_for_a_while():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # bound and not listening: nobody else takes the port
        url = f"redis://:secret@127.0.0.1:{holder.getsockname()[1]}/0"
        with StateView(url, prefix="x") as view, pytest.raises(DependencyError, match=r":\*\*\*@127.* does not answer"):
            view.write(WRITER, 1, [("ann", b"one")], since=0)
        clock = [0.0]

        async def work() -> None:
            reader = StateViewReader(url, prefix="x", clock=lambda: clock[0])
            for now, errors in ((0.0, 1), (0.5, 1), (1.5, 2)):
                clock[0] = now
                with pytest.raises(DependencyError, match="does not answer"):
                    await reader.read([Asked("ann", WRITER, "t-1", MINE)])
                assert reader.errors == errors
            await reader.close()

        asyncio.run(work())


def test_a_server_that_holds_still_and_one_that_is_killed_are_errors_and_both_come_back():
    with server_of_my_own(ValkeyServer) as server, StateView(server.address, prefix="x") as view:
        rig = Rig(view, lambda: StateViewReader(server.address, prefix="x"), lambda: None).filled(ann=b"one")
        server.pause()
        with pytest.raises(DependencyError, match="does not answer"):
            view.write(WRITER, 11, [("ann", b"two")], since=10)
        with pytest.raises(DependencyError, match="does not answer"):
            rig.read()
        server.resume()
        assert view.write(WRITER, 12, [("ann", b"two")], since=10).reach in {12, 11}  # the held one may have arrived
        server.kill()
        with pytest.raises(DependencyError, match="does not answer"):
            view.write(WRITER, 13, [], since=12)
        server.start()
        assert view.write(WRITER, 13, [], since=12).reach is None  # all memory is gone
        assert view.settle([("t-1", replace(MINE, answer=b"{}"))]) == [None]  # scripts as well
