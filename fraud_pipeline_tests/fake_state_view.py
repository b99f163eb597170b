"""The state view in memory: both sides of it, with the same refusals, and it can be away or lose everything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fraud_pipeline.adapters.claims import Claim
from fraud_pipeline.adapters.state_view import Written
from fraud_pipeline.adapters.state_view_reader import Asked, Seen
from fraud_pipeline.errors import DependencyError


class FakeViewServer:
    """What the two sides share."""

    def __init__(self) -> None:
        self.away = False
        self.round_trips = 0
        self.customers: dict[str, tuple[str, int, bytes]] = {}
        self.reach: dict[str, int] = {}
        self.rebuilds: dict[str, str] = {}
        self.claims: dict[str, Claim] = {}

    def lose_everything(self) -> None:
        for each in (self.customers, self.reach, self.rebuilds, self.claims):
            each.clear()

    def asked(self) -> None:
        self.round_trips += 1
        if self.away:
            raise DependencyError("The state view fake does not answer: it is away.", remedy="Is it up?")


class FakeStateView:
    def __init__(self, server: FakeViewServer) -> None:
        self.address = "fake"
        self._server = server
        self._tokens = 0

    def close(self) -> None:
        pass

    def ping(self) -> None:
        self._server.asked()

    def write(self, writer: str, offset: int, records: Sequence[tuple[str, bytes]], *, since: int) -> Written:
        written = self.write_only(writer, offset, records)
        reach = self._server.reach.get(writer, -1)
        if reach == since:
            reach = self._server.reach[writer] = offset
        elif reach < since:
            self._server.reach.pop(writer, None)
            reach = -1
        return Written(written.older, written.strangers, None if reach < 0 else reach)

    def write_only(self, writer: str, offset: int, records: Sequence[tuple[str, bytes]]) -> Written:
        self._server.asked()
        older = strangers = 0
        for customer_id, content in records:
            there = self._server.customers.get(customer_id)
            strangers += there is not None and there[0] != writer
            if there is not None and there[0] == writer and there[1] > offset:
                older += 1
            else:
                self._server.customers[customer_id] = (writer, offset, content)
        return Written(older, strangers, self._server.reach.get(writer))

    def begin(self, writer: str) -> str:
        self._server.asked()
        self._tokens += 1
        self._server.rebuilds[writer] = str(self._tokens)
        return str(self._tokens)

    def complete(self, writer: str, token: str, offset: int) -> bool:
        self._server.asked()
        if self._server.rebuilds.get(writer) != token:
            return False
        del self._server.rebuilds[writer]
        self._server.reach[writer] = offset
        return True

    def reaches(self) -> dict[str, int]:
        self._server.asked()
        return dict(self._server.reach)

    def settle(self, decided: Sequence[tuple[str, Claim]]) -> list[Claim | None]:
        self._server.asked()
        answers: list[Claim | None] = []
        for identity, claim in decided:
            there = self._server.claims.get(identity)
            taken = there is not None and there.answer is not None and there.to_bytes() != claim.to_bytes()
            if not taken:
                self._server.claims[identity] = Claim(claim.fingerprint, b"", claim.answer)
            answers.append(there if taken else None)
        return answers

    def release(self, claims: Iterable[tuple[str, Claim]]) -> None:
        self._server.asked()
        for identity, claim in claims:
            if self._server.claims.get(identity) == claim:
                del self._server.claims[identity]


class FakeStateViewReader:
    def __init__(self, server: FakeViewServer) -> None:
        self.address = "fake"
        self.last_error = ""
        self.errors = 0
        self._server = server

    async def close(self) -> None:
        pass

    async def ping(self) -> None:
        self._server.asked()

    async def read(self, asked: Sequence[Asked]) -> list[Seen]:
        self._ask()
        return [self._seen(each) for each in asked]

    async def claim_of(self, transaction_id: str) -> Claim | None:
        self._ask()
        return self._server.claims.get(transaction_id)

    async def reaches(self) -> dict[str, int]:
        self._ask()
        return dict(self._server.reach)

    def _ask(self) -> None:
        try:
            self._server.asked()
        except DependencyError as err:
            self.errors, self.last_error = self.errors + 1, err.message
            raise
        self.last_error = ""

    def _seen(self, asked: Asked) -> Seen:
        other = None
        if asked.claim is not None:
            there = self._server.claims.setdefault(asked.transaction_id, asked.claim)
            other = None if there == asked.claim else there
        writer, offset, record = self._server.customers.get(asked.customer_id, ("", -1, None))
        return Seen(record, writer, offset, self._server.reach.get(asked.writer), other)
