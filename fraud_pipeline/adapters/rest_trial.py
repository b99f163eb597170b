"""A trial of the scoring service over HTTP: many payments at once while the process is killed, and what is there afterwards.

The service runs in processes of its own, on a scratch home with the present champion and nothing else, and is ended by
`kill -9` at random moments under load. Whoever got no answer asks again, as a gateway would. Judged is what was promised:
every answered decision is in the ledger with the answer's very content, none twice, the state equals a replay of the log,
and the logged vectors equal batch.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from fraud_pipeline.adapters.process_ending import kill_with_children
from fraud_pipeline.errors import DependencyError

CONNECTIONS: Final = 12
BATCH: Final = 50
SINGLES: Final = 0.3
"""Share of the chunks that are sent one payment at a time."""
START_S: Final = 120.0
STOP_S: Final = 60.0
SERVICE: Final = "serving.service:FraudScoringService"


@dataclass
class TrialResult:
    """What came of it. `lost`: answered and not in the ledger. `changed`: answered twice, or kept, otherwise."""

    payments: int = 0
    answered: int = 0
    labels: int = 0
    kills: int = 0
    resent: int = 0
    refused: int = 0
    lost: int = 0
    changed: int = 0
    missing: int = 0
    states_equal: bool = False
    parity: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Everything that was promised held."""
        whole = self.answered == self.payments and not (self.lost or self.changed or self.missing)
        return whole and self.states_equal and bool(self.parity.get("equal"))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


ROOT: Final = Path(__file__).resolve().parents[2]


class Supervised:
    """The service in a process group of its own, started again after each kill."""

    def __init__(self, home: Path, log: Path) -> None:
        self._home = home
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self.port = _free_port()
        self.ready = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self, session: aiohttp.ClientSession) -> None:
        """Start it and wait until it is ready. DependencyError with the end of its log where it is not."""
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bentoml", "serve", SERVICE, "--host", "127.0.0.1", "--port", str(self.port),
                "--working-dir", str(ROOT),
                stdout=output, stderr=output, cwd=ROOT, start_new_session=True,
                env={**os.environ, "FRAUD_HOME": str(self._home), "BENTOML_DO_NOT_TRACK": "True", "OMP_WAIT_POLICY": "PASSIVE"},
            )  # fmt: skip
        try:
            async with asyncio.timeout(START_S):
                while not await self._is_ready(session):  # noqa: ASYNC110  # another process says so, no event of ours
                    await asyncio.sleep(0.05)
        except TimeoutError as err:
            await self.kill()
            said = self._log.read_text(errors="replace")[-1_500:]
            raise DependencyError(f"The service was not ready after {START_S:g} s.", remedy=said) from err
        self.ready.set()

    async def kill(self) -> None:
        """`kill -9`, the supervisor and the worker alike."""
        self.ready.clear()
        await self._end()

    async def stop(self) -> None:
        """A clean stop, which keeps a checkpoint."""
        self.ready.clear()
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_S)
            except TimeoutError:
                await self._end()

    async def _end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            kill_with_children(self._process.pid)
            await self._process.wait()

    async def _is_ready(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.url}/readyz", timeout=aiohttp.ClientTimeout(total=2)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


class RestTrial:
    """Sends `payments` (JSON values, in the order of their times) and labels some, with `kills` on the way."""

    def __init__(
        self, service: Supervised, payments: Sequence[dict[str, Any]], *, frauds: set[str], kills: int, seed: int
    ) -> None:
        self.result = TrialResult(payments=len(payments))
        self.answers: dict[str, Any] = {}
        self._service = service
        self._frauds = frauds
        self._random = random.Random(seed)  # noqa: S311  # a seeded trial, not a secret
        self._chunks = [payments[start : start + BATCH] for start in range(0, len(payments), BATCH)]
        self._chunks.reverse()
        self._done = 0
        last = max(2, len(payments) * 7 // 10)  # while there is still much to come
        marks = sorted(self._random.sample(range(1, last), min(kills, last - 1)))
        self._kill_at = marks

    async def run(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Until everything is answered."""
        connector = aiohttp.TCPConnector(limit=CONNECTIONS + 2)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
            await self._service.start(session)
            workers = [asyncio.create_task(self._work(session)) for _ in range(CONNECTIONS)]
            try:
                await self._kill_now_and_then(session, workers, progress)
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await self._service.stop()
        self.result.answered = len(self.answers)

    async def _kill_now_and_then(
        self,
        session: aiohttp.ClientSession,
        workers: Sequence[asyncio.Task[None]],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        while not all(worker.done() for worker in workers):
            if self._kill_at and self._done >= self._kill_at[0]:
                self._kill_at.pop(0)
                await asyncio.sleep(self._random.random() * 0.005)  # anywhere within what is in flight
                await self._service.kill()
                self.result.kills += 1
                await self._service.start(session)
            if progress is not None:
                progress(self._done, self.result.payments)
            await asyncio.sleep(0.005)

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while self._chunks:
            chunk = self._chunks.pop()
            if self._random.random() < SINGLES:
                for payment in chunk:
                    await self._send(session, "/score", payment, [payment])
            else:
                await self._send(session, "/score_batch", {"transactions": chunk}, chunk)
            labelled = [p["transaction_id"] for p in chunk if p["transaction_id"] in self._frauds]
            if labelled:
                body = {"labels": [{"transaction_id": i, "is_fraud": True, "source": "simulation"} for i in labelled]}
                await self._send(session, "/labels", body, [])
                self.result.labels += len(labelled)

    async def _send(
        self, session: aiohttp.ClientSession, path: str, body: Any, payments: Sequence[dict[str, Any]]
    ) -> None:
        """Ask until there is an answer."""
        content, first = orjson.dumps(body), True
        while True:
            await self._service.ready.wait()
            self.result.resent += 0 if first else 1
            first = False
            try:
                async with session.post(
                    self._service.url + path, data=content, headers={"Content-Type": "application/json"}
                ) as response:
                    answer = await response.read()
                    status = response.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                continue
            if status == 503:
                self.result.refused += 1
                await asyncio.sleep(0.05)
                continue
            if status != 200:
                raise DependencyError(f"{path} answered {status}: {answer[:300]!r}")
            if self._take(path, orjson.loads(answer), payments):
                return

    def _take(self, path: str, answer: Any, payments: Sequence[dict[str, Any]]) -> bool:
        """Remember the decisions; whether the chunk is done."""
        if path == "/labels":
            return True
        decisions = [answer] if path == "/score" else [each.get("decision") for each in answer["results"]]
        for payment, decision in zip(payments, decisions, strict=True):
            if decision is None:
                continue  # refused for the moment: asked again with the chunk
            identity = payment["transaction_id"]
            if identity not in self.answers:
                self.answers[identity] = decision
                self._done += 1
            elif self.answers[identity] != decision:
                self.result.changed += 1
        return all(payment["transaction_id"] in self.answers for payment in payments)


def scratch_home(source: Path, target: Path, *, with_history: bool) -> None:
    """A home with the same models and promotions and, if wanted, the same landed history; no live payment."""
    target.mkdir(parents=True)
    for name in ("bundles", "mlflow.db", "mlartifacts", *(("source", "data") if with_history else ())):
        if (source / name).exists():
            (target / name).symlink_to(source / name)
    if with_history and (source / "checkpoints" / "history").exists():
        shutil.copytree(source / "checkpoints" / "history", target / "checkpoints" / "history")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
