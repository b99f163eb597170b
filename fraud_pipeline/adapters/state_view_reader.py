"""How a REST replica reads the state view: a customer's record, how far the view reaches, and the claim of the id, at once.

Async, of one event loop. A view that failed is left alone for a moment, so that its absence costs one payment its timeout
and not each of them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry

from fraud_pipeline.adapters.claims import Claim
from fraud_pipeline.adapters.state_view import (
    CLAIM_TTL_S,
    VIEW_TIMEOUT_S,
    ViewKeys,
    connection_options,
    shown_address,
    view_errors,
)
from fraud_pipeline.errors import DependencyError

VIEW_PAUSE_S: Final = 1.0
"""How long a view that did not answer is not asked again."""
_OFFSET_LETTERS: Final = 20
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Asked:
    """A payment: whose, of which writer, and the claim that is made of its id (None makes none)."""

    customer_id: str
    writer: str
    transaction_id: str
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What the view says. `record` None: it has none of this customer, who is new if the view is whole.

    The record holds all that its writer's log has of the customer before `offset` (-1 without a record), and no record of
    this writer lacks anything before `reach` (None: the view is not whole). `claim` is another's, or None for ours.
    """

    record: bytes | None
    record_writer: str
    offset: int
    reach: int | None
    claim: Claim | None


class StateViewReader:
    """Connects when it is first used."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        timeout_s: float = VIEW_TIMEOUT_S,
        pause_s: float = VIEW_PAUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = shown_address(url)
        self.last_error = ""
        self.errors = 0
        self._keys = ViewKeys(prefix)
        self._client: Any = redis.asyncio.Redis.from_url(url, **connection_options(timeout_s, Retry))
        self._pause_s = pause_s
        self._clock = clock
        self._ask_again_at = 0.0

    async def close(self) -> None:
        await self._client.aclose()

    async def read(self, asked: Sequence[Asked]) -> list[Seen]:
        """What the view says of each payment, in one round trip; ids that nobody has are claimed.

        DependencyError where the view is away, or was a moment ago.
        """
        pipeline = self._client.pipeline(transaction=False)
        for each in asked:  # the reach before the record: all that it promises is in a record that is read after it
            pipeline.hget(self._keys.reach, each.writer)
            pipeline.get(self._keys.customer(each.customer_id))
            if each.claim is not None:
                pipeline.set(
                    self._keys.claim(each.transaction_id), each.claim.to_bytes(), nx=True, get=True, ex=CLAIM_TTL_S
                )
        found = iter(await self._asked(pipeline.execute))
        return [_seen(each, next(found), next(found), None if each.claim is None else next(found)) for each in asked]

    async def claim_of(self, transaction_id: str) -> Claim | None:
        """Who has an id."""
        found = await self._asked(lambda: self._client.get(self._keys.claim(transaction_id)))
        return None if found is None else Claim.of(found)

    async def reaches(self) -> dict[str, int]:
        """How far each writer's customers are complete."""
        found = await self._asked(lambda: self._client.hgetall(self._keys.reach))
        return {name.decode(): int(place) for name, place in found.items() if not name.startswith(b"rebuild:")}

    async def ping(self) -> None:
        """DependencyError where it does not answer; asks even in a pause."""
        with view_errors(self.address):
            await self._client.ping()

    async def _asked(self, question: Callable[[], Awaitable[Result]]) -> Result:
        if self._clock() < self._ask_again_at:
            raise DependencyError(self.last_error, remedy="It is asked again in a moment.")
        try:
            with view_errors(self.address):
                answer = await question()
        except DependencyError as err:
            self.errors += 1
            self.last_error, self._ask_again_at = err.message, self._clock() + self._pause_s
            raise
        self.last_error = ""
        return answer


def _seen(asked: Asked, reach: bytes | None, content: bytes | None, claim: bytes | None) -> Seen:
    """`claim` is what was there before: nothing, or what a lost connection's first attempt left there in our name."""
    other = None if claim is None else Claim.of(claim)
    if other is not None and asked.claim is not None and other == asked.claim:
        other = None
    place = None if reach is None else int(reach)
    if content is None:
        return Seen(None, "", -1, place, other)
    stop = content.index(b"\n")
    writer = content[_OFFSET_LETTERS + 1 : stop].decode()
    return Seen(content[stop + 1 :], writer, int(content[:_OFFSET_LETTERS]), place, other)
