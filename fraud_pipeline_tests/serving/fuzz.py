"""`make fuzz`: many bodies, most of them bad, through the HTTP stack of a running service; exit code 1 on any wrong answer.

    python -m fraud_pipeline_tests.serving.fuzz --home HOME [--bodies 100000] [--connections 8] [--seed 1] [--json]

Starts a service on the home itself (give a copy: valid bodies are decided and recorded), or uses the one at --url. An answer is wrong
if it is another than the oracle's (`fuzz_oracle`), a 500, or none at all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from benchmarks.serving_home import environment, trained_home
from fraud_pipeline_tests.service_process import service_running
from fraud_pipeline_tests.serving.fuzz_bodies import Bodies, FuzzCase
from fraud_pipeline_tests.serving.fuzz_judge import complaint

TIMEOUT_S = 60.0
KEPT = 20
"""Wrong answers that are shown."""
REPORTED_EVERY_S = 10.0


class Fuzz:
    """A run and what it found."""

    def __init__(self, url: str, *, bodies: int, seed: int) -> None:
        self.url = url.rstrip("/")
        self.wanted = bodies
        self.seed = seed
        self.sent = 0
        self.statuses: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.wrong_answers = 0
        self._rng = random.Random(seed)
        self._bodies = Bodies(f"fuzz-{uuid.uuid4().hex[:8]}")
        self._reported = time.monotonic()

    async def run(self, connections: int) -> None:
        """Send everything, then ask whether the service still lives."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        # Without automatic headers, a case has the content type that it says, or none.
        async with aiohttp.ClientSession(timeout=timeout, skip_auto_headers=["Content-Type"]) as session:
            async with asyncio.TaskGroup() as group:
                for _ in range(connections):
                    group.create_task(self._send(session))
            async with session.get(f"{self.url}/readyz") as answer:
                if answer.status != 200:
                    self._complain("afterwards", f"/readyz says {answer.status}", b"")

    async def _send(self, session: aiohttp.ClientSession) -> None:
        while self.sent < self.wanted:
            self.sent += 1
            case = self._bodies.case(self._rng, datetime.now(UTC))
            await self._judge(session, case)
            if time.monotonic() > self._reported + REPORTED_EVERY_S:
                self._reported = time.monotonic()
                say(f"{self.sent:,} of {self.wanted:,}: {dict(self.statuses)}, {self.wrong_answers} wrong")

    async def _judge(self, session: aiohttp.ClientSession, case: FuzzCase) -> None:
        self.kinds[case.kind] += 1
        try:
            async with session.post(f"{self.url}/score", data=case.body, headers=case.headers) as answer:
                content = await answer.read()
                status, media_type = answer.status, answer.headers.get("Content-Type", "")
        except (aiohttp.ClientError, TimeoutError) as err:
            # A server may answer a body that is too large and close before it has read all of it.
            name = "closed early" if 413 in case.statuses else "no answer"
            self.statuses[name] += 1
            if name == "no answer":
                self._complain(case.kind, f"no answer: {type(err).__name__} {err}", case.body)
            return
        self.statuses[str(status)] += 1
        if wrong := complaint(case, status, media_type, content):
            self._complain(case.kind, f"{wrong} {content[:300]!r}", case.body)

    def _complain(self, kind: str, wrong: str, body: bytes) -> None:
        self.wrong_answers += 1
        if len(self.wrong) < KEPT:
            self.wrong.append(f"{kind}: {wrong} to {body[:500]!r}")
            say(self.wrong[-1])


def main() -> None:
    """Run and print; the JSON object comes last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="of a running service that may take the payments; by default one is started")
    parser.add_argument(
        "--home", help="a home with a champion, for the service that is started; by default one is made"
    )
    parser.add_argument("--bodies", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    started = time.monotonic()
    with running_at(options.url, options.home) as (url, log):
        fuzz = Fuzz(url, bodies=options.bodies, seed=options.seed)
        asyncio.run(fuzz.run(options.connections))
        tracebacks = log.read_text(errors="replace").count("Traceback") if log else 0
    result = {
        "bodies": fuzz.sent,
        "statuses": dict(sorted(fuzz.statuses.items())),
        "kinds": dict(sorted(fuzz.kinds.items())),
        "wrong": fuzz.wrong_answers,
        "tracebacks": tracebacks,
        "seed": fuzz.seed,
        "seconds": round(time.monotonic() - started, 1),
    }
    if not options.json:
        say(f"{fuzz.sent:,} bodies, {fuzz.wrong_answers} wrong answers, {tracebacks} tracebacks in the service's log")
    sys.stdout.write(json.dumps(result) + "\n")
    raise SystemExit(1 if fuzz.wrong_answers or tracebacks else 0)


@contextmanager
def running_at(url: str | None, home: str | None) -> Iterator[tuple[str, Path | None]]:
    """The service's address, and its log where it is ours."""
    if url:
        yield url, None
        return
    with trained_home(home) as own, tempfile.TemporaryDirectory(prefix="fraud-fuzz-") as logs:
        log = Path(logs) / "service.log"
        with service_running(log, environment=environment(own)) as service:
            yield service.url, log


def say(text: str) -> None:
    """Progress, beside the result."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
