"""Load on a scoring service, and what it answered: the engine of `fraud loadtest` and of the benchmarks over HTTP.

Open loop: request n is due at n / rate, whatever became of those before it, and its latency counts from then, so that a
service that stalls cannot hide the requests it kept from being sent (coordinated omission). Closed loop (rate 0): each
connection sends its next request when it has its answer. Prints nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import selectors
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

Bodies = Callable[[], bytes]
"""Makes the next request body."""

NO_ANSWER: Final = "no answer"
ANSWER_TIMEOUT_S: Final = 30.0
"""Three times the service's own limit: what takes longer was lost."""
KEPT_PROBLEMS: Final = 5
_SHORTEST_S: Final = 1e-6
_GROWTH: Final = 1.005
"""Buckets half a percent wide: quantiles are that exact, and a day of load takes no more memory than a second."""
_BUCKETS: Final = math.ceil(math.log(ANSWER_TIMEOUT_S * 100 / _SHORTEST_S) / math.log(_GROWTH))
MAX_CONNECTIONS: Final = 512
"""select() sees descriptors below 1,024."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """What to send. `rate` is requests per second, 0 for a closed loop; `url` is the whole address of the route.

    It ends after `duration_s`, or after `requests` of them where that is not 0.
    """

    url: str
    duration_s: float
    rate: float = 0.0
    requests: int = 0
    connections: int = 16
    key: str = ""


@dataclass(slots=True)
class Tally:
    """What came of it so far. Latencies are in seconds."""

    started: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    scheduled: int = 0
    sent: int = 0
    answered: int = 0
    failed: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    decisions: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    item_errors: int = 0
    problems: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    _buckets: list[int] = field(default_factory=lambda: [0] * (_BUCKETS + 1))

    @property
    def elapsed_s(self) -> float:
        return (self.ended or time.perf_counter()) - self.started

    def answer(self, latency_s: float, status: int, content: bytes) -> None:
        """One answer that came."""
        self._timed(latency_s)
        self.statuses[str(status)] += 1
        shown = f"{status}: {content[:300].decode(errors='replace')}"
        if not 200 <= status < 300:
            self._failed(shown)
            return
        try:
            self._count_decisions(orjson.loads(content))
        except orjson.JSONDecodeError:
            self._failed(shown)

    def no_answer(self, latency_s: float, err: BaseException) -> None:
        """One request without an answer: refused, cut off, or over time."""
        self._timed(latency_s)
        self.statuses[NO_ANSWER] += 1
        self._failed(f"{NO_ANSWER}: {type(err).__name__} {err}".strip())

    def quantile_s(self, share: float) -> float:
        """The latency that `share` of the requests did not exceed; NaN before the first."""
        if not self.answered:
            return math.nan
        wanted, seen = math.ceil(share * self.answered), 0
        for place, count in enumerate(self._buckets):
            seen += count
            if seen >= wanted:
                return min(_SHORTEST_S * _GROWTH**place, self.slowest_s)
        return self.slowest_s

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; latencies in milliseconds."""
        seconds = self.elapsed_s
        quantiles = {f"p{name}": self.quantile_s(float(f"0.{name}")) for name in ("50", "90", "99", "999")}
        return {
            "seconds": round(seconds, 3),
            "sent": self.sent,
            "answered": self.answered,
            "failed": self.failed,
            "requests_per_s": round(self.answered / seconds, 1) if seconds else None,
            "decisions_per_s": round(self.decisions.total() / seconds, 1) if seconds else None,
            "latency_ms": {name: _ms(value) for name, value in {**quantiles, "max": self.slowest_s}.items()},
            "statuses": dict(self.statuses),
            "decisions": dict(self.decisions),
            "model_versions": dict(self.versions),
            "item_errors": self.item_errors,
            "problems": list(self.problems),
        }

    def _timed(self, latency_s: float) -> None:
        self.answered += 1
        self.slowest_s = max(self.slowest_s, latency_s)
        place = math.ceil(math.log(max(latency_s, _SHORTEST_S) / _SHORTEST_S) / math.log(_GROWTH))
        self._buckets[min(place, _BUCKETS)] += 1

    def _failed(self, problem: str) -> None:
        self.failed += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(problem)

    def _count_decisions(self, answer: Any) -> None:
        results: Sequence[Any] = answer.get("results", [{"decision": answer}]) if isinstance(answer, dict) else []
        errors = 0
        for result in results:
            decision = result.get("decision")
            if isinstance(decision, dict) and "decision" in decision:
                self.decisions[decision["decision"]] += 1
                self.versions[str(decision.get("model_version"))] += 1
            elif "error" in result:
                errors += 1
                self.item_errors += 1
        if errors:
            self._failed(f"{errors} items: {next(r['error'] for r in results if 'error' in r)}"[:300])


def run_load(plan: LoadPlan, bodies: Bodies, tally: Tally | None = None) -> Tally:
    """Send the plan's load from a loop of its own; an interrupt (KeyboardInterrupt) leaves the tally as it is by then."""
    tally = tally or Tally()
    with asyncio.Runner(loop_factory=precise_loop) as runner:
        return runner.run(generate(plan, bodies, tally))


def precise_loop() -> asyncio.AbstractEventLoop:
    """A loop whose timers are exact to microseconds: epoll and uvloop round them up to whole milliseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def generate(plan: LoadPlan, bodies: Bodies, tally: Tally) -> Tally:
    """Send until the plan's time is over and what was sent is answered."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {plan.key}"} if plan.key else {})
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=plan.connections),
        timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S),
        headers=headers,
    ) as session:
        await _connect(session, plan)
        tally.started, tally.ended = time.perf_counter(), None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(plan.connections, MAX_CONNECTIONS)):
                    group.create_task(_connection(session, plan, bodies, tally))
        finally:
            tally.ended = time.perf_counter()
    return tally


async def _connect(session: aiohttp.ClientSession, plan: LoadPlan) -> None:
    """Open the connections before the clock starts: whoever pays by card has them open too."""
    alive = URL(plan.url).origin() / "livez"

    async def ask() -> None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):  # the load will say so
            async with session.get(alive) as answer:
                await answer.read()

    await asyncio.gather(*(ask() for _ in range(plan.connections)))


async def _connection(session: aiohttp.ClientSession, plan: LoadPlan, bodies: Bodies, tally: Tally) -> None:
    """Take the next request, wait until it is due, send it, and so on."""
    end = tally.started + plan.duration_s
    while True:
        due = tally.started + tally.scheduled / plan.rate if plan.rate else time.perf_counter()
        if due >= end or (plan.requests and tally.scheduled >= plan.requests):
            return
        tally.scheduled += 1
        early = due - time.perf_counter()
        if early > 0:
            await asyncio.sleep(early)
        body = bodies()
        tally.sent += 1
        began = due if plan.rate else time.perf_counter()
        try:
            async with session.post(plan.url, data=body) as answer:
                content = await answer.read()
                tally.answer(time.perf_counter() - began, answer.status, content)
        except (aiohttp.ClientError, TimeoutError, OSError) as err:
            tally.no_answer(time.perf_counter() - began, err)


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds * 1e3, 3)
