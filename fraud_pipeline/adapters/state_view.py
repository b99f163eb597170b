r"""The view of the state in Redis or Valkey: customers' records as the scorers write them after each commit.

A view, never the truth: whoever loses it writes it anew. Keys, all under `PREFIX:SCHEMA:`

- `c:CUSTOMER`: `OFFSET WRITER\n` and the customer's record. A writer's older offset never overwrites its newer one.
- `reach` (a hash): the next place of each writer's log: all before it is there; a writer without an entry has not written all of
  them. `rebuild:WRITER` in the same hash is there while one writes all of them.

and under `PREFIX:` without a schema `t:TRANSACTION`, the claim of an id (`claims.Claim`). Memory that runs out must refuse
writes (`noeviction`): an evicted record cannot be told from a customer who never paid. One server, not a cluster: a batch
is one script over many keys.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fraud_pipeline.adapters.claims import Claim
from fraud_pipeline.domain.feature_spec import SCHEMA_HASH
from fraud_pipeline.domain.feature_state import FORGET_AFTER_US
from fraud_pipeline.errors import DependencyError

VIEW_TIMEOUT_S: Final = 0.25
"""A command takes 0.2 ms, a batch of 2,000 records 20; a server that takes longer is away, and payments wait for it."""
FEED_TIMEOUT_S: Final = 5.0
"""For a scorer, whose thread sends while nobody waits for it."""
RECORD_TTL_S: Final = FORGET_AFTER_US // 1_000_000
"""Twice STATE_HORIZON: a payment may be 90 days late and still look back 90 days."""
CLAIM_TTL_S: Final = 30
"""How long an id is held for a replica that decides it, which takes milliseconds: what one that died had claimed is free then."""
ANSWER_TTL_S: Final = 900
"""How long an answer is kept with its claim: callers send again within seconds, and the ledger has it seconds later."""
AT_ONCE: Final = 500
"""Records in one script, during which nobody else is served: 2 ms."""

_WRITE: Final = """
local writer, offset, ttl = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local header = ARGV[2] .. ' ' .. writer .. '\\n'
local older, strangers = 0, 0
for i = 2, #KEYS do
  local head = redis.call('GETRANGE', KEYS[i], 0, 299)
  local stop = string.find(head, '\\n', 1, true)
  local write = true
  if stop then
    if string.sub(head, 22, stop - 1) ~= writer then
      strangers = strangers + 1
    elseif tonumber(string.sub(head, 1, 20)) > offset then
      write, older = false, older + 1
    end
  end
  if write then redis.call('SET', KEYS[i], header .. ARGV[i + 3], 'EX', ttl) end
end
local since, reach = tonumber(ARGV[4]), tonumber(redis.call('HGET', KEYS[1], writer) or -1)
if since >= 0 and reach == since then
  reach = offset
  redis.call('HSET', KEYS[1], writer, ARGV[2])
elseif since >= 0 and reach < since then
  reach = -1
  redis.call('HDEL', KEYS[1], writer)
end
return {older, strangers, reach}
"""
"""KEYS: the hash of reaches, then the customers; ARGV: writer, offset (20 digits), TTL, the reach that the writer knows or -1,
then the records. A reach below the one it knows is that of a snapshot, which a server that was killed came back with."""
_COMPLETE: Final = """
if redis.call('HGET', KEYS[1], 'rebuild:' .. ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'rebuild:' .. ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
_SETTLE: Final = """
local found = redis.call('GET', KEYS[1])
if found and string.sub(found, 1, 1) == 'd' then return found end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return false
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did. `older` records were newer there; `strangers` had come from another writer, and were replaced.

    `reach` None: the view has lost something that this writer wrote, or never had all of it: everything is to be written.
    """

    older: int
    strangers: int
    reach: int | None


def view_prefix(prefix: str, topic_prefix: str) -> str:
    """What keys begin with: installations that share a server differ in one of the two."""
    return f"{prefix}:{topic_prefix}" if topic_prefix else prefix


def shown_address(url: str) -> str:
    """The address as people may see it: without its password."""
    return re.sub(r"//([^/@:]*):[^/]*@", r"//\1:***@", url)


class ViewKeys:
    """How things are named."""

    def __init__(self, prefix: str) -> None:
        self.reach = f"{prefix}:{SCHEMA_HASH}:reach"
        self._customer = f"{prefix}:{SCHEMA_HASH}:c:"
        self._claim = f"{prefix}:t:"

    def customer(self, customer_id: str) -> str:
        return self._customer + customer_id

    def claim(self, transaction_id: str) -> str:
        return self._claim + transaction_id


class StateView:
    """What scorers and committing threads do with the view. Connects when it is first used; threads may share it."""

    def __init__(self, url: str, *, prefix: str, timeout_s: float = VIEW_TIMEOUT_S) -> None:
        self.address = shown_address(url)
        self.keys = ViewKeys(prefix)
        self._client: Any = redis.Redis.from_url(url, **connection_options(timeout_s, Retry))
        self._write = self._client.register_script(_WRITE)
        self._complete = self._client.register_script(_COMPLETE)
        self._settle = self._client.register_script(_SETTLE)
        self._release = self._client.register_script(_RELEASE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def ping(self) -> None:
        """DependencyError where it does not answer."""
        with view_errors(self.address):
            self._client.ping()

    # What a scorer does

    def write(self, writer: str, offset: int, records: Sequence[tuple[str, bytes]], *, since: int) -> Written:
        """Write the customers that have changed since the view reached `since`: it reaches `offset` then, the next place.

        One round trip, or two for more than AT_ONCE. May be repeated. DependencyError where the view is away or full: then
        what was to be written must be written again, later ones included.
        """
        first = (len(records) - 1) // AT_ONCE * AT_ONCE if records else 0
        before = self.write_only(writer, offset, records[:first]) if first else Written(0, 0, None)
        with view_errors(self.address):
            older, strangers, reach = self._write(
                keys=self._keys(records[first:]), args=_arguments(writer, offset, since, records[first:])
            )
        return Written(before.older + older, before.strangers + strangers, None if reach < 0 else reach)

    def write_only(self, writer: str, offset: int, records: Sequence[tuple[str, bytes]]) -> Written:
        """Write customers without saying that the others are there: a part of everything."""
        chunks = [records[start : start + AT_ONCE] for start in range(0, len(records), AT_ONCE)]
        older = strangers = 0
        reach = -1
        with view_errors(self.address):
            for chunk in chunks:
                found = self._write(keys=self._keys(chunk), args=_arguments(writer, offset, -1, chunk))
                older, strangers, reach = older + found[0], strangers + found[1], found[2]
        return Written(older, strangers, None if reach < 0 else reach)

    def begin(self, writer: str) -> str:
        """Begin to write everything; the token is for `complete`."""
        token = secrets.token_hex(8)
        with view_errors(self.address):
            self._client.hset(self.keys.reach, f"rebuild:{writer}", token)
        return token

    def complete(self, writer: str, token: str, offset: int) -> bool:
        """Say that everything is written; False where memory was lost meanwhile, or another one has begun."""
        with view_errors(self.address):
            return bool(self._complete(keys=[self.keys.reach], args=[writer, token, offset]))

    def reaches(self) -> dict[str, int]:
        """How far each writer's customers are complete."""
        with view_errors(self.address):
            found = self._client.hgetall(self.keys.reach)
        return {name.decode(): int(place) for name, place in found.items() if not name.startswith(b"rebuild:")}

    # What a replica's committing thread does

    def settle(self, decided: Sequence[tuple[str, Claim]]) -> list[Claim | None]:
        """Put answers to their claims, in one round trip; another's claim where its answer was there first."""
        if not decided:
            return []
        with view_errors(self.address):
            found = self._pipelined(
                self._settle,
                [([self.keys.claim(identity)], [claim.to_bytes(), ANSWER_TTL_S]) for identity, claim in decided],
            )
        return [
            None if there is None or there == ours.to_bytes() else Claim.of(there)
            for there, (_, ours) in zip(found, decided, strict=True)
        ]

    def release(self, claims: Iterable[tuple[str, Claim]]) -> None:
        """Give up claims that are still held, since nothing was decided."""
        with view_errors(self.address):
            for identity, claim in claims:
                self._release(keys=[self.keys.claim(identity)], args=[claim.to_bytes()])

    def _keys(self, records: Sequence[tuple[str, bytes]]) -> list[str]:
        return [self.keys.reach, *(self.keys.customer(customer_id) for customer_id, _ in records)]

    def _pipelined(self, script: Any, calls: Sequence[tuple[list[str], list[Any]]]) -> list[Any]:
        """Call a script many times in one round trip; one more where the server has not met it yet."""
        for attempt in range(2):
            pipeline = self._client.pipeline(transaction=False)
            for keys, arguments in calls:
                pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
            found: list[Any] = pipeline.execute(raise_on_error=False)
            failed = next((each for each in found if isinstance(each, Exception)), None)
            if failed is None:
                return found
            if attempt or not isinstance(failed, redis.exceptions.NoScriptError):
                raise failed
            self._client.script_load(script.script)
        raise AssertionError("the loop returns or raises")


@contextmanager
def view_errors(address: str) -> Iterator[None]:
    """The library's errors as ours."""
    try:
        yield
    except (redis.RedisError, OSError) as err:
        raise view_error(address, err) from err


def view_error(address: str, error: BaseException) -> DependencyError:
    """What is told where the view cannot be used."""
    full = isinstance(error, redis.exceptions.OutOfMemoryError)
    return DependencyError(
        f"The state view {address} {'is full' if full else 'does not answer'}: {error}.",
        remedy="Give it more memory (`maxmemory`)."
        if full
        else "Is it up? `fraud services up redis`, FRAUD_STATE_VIEW_URL.",
    )


def connection_options(timeout_s: float, retry: type[Any]) -> dict[str, Any]:
    """One more attempt on a fresh connection, since the old one may be a restarted server's; no waiting."""
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    }


def _arguments(writer: str, offset: int, since: int, records: Sequence[tuple[str, bytes]]) -> list[Any]:
    return [writer, f"{offset:020d}", RECORD_TTL_S, since, *(content for _, content in records)]
