"""Promotions under load: `python -m benchmarks.swap [--home HOME] [--rate 100] [--seconds 30] [--every 3] [--json]`.

Open-loop load on a running service; for half of the time two versions are promoted in turn, by another process as a person
would. Bar: no request fails, and p99 within 2x of the p99 without promotions (`p99_ratio`). The load without them is
measured before and after.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from benchmarks.serving_home import environment, say, second_version, traffic_of, trained_home
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.load_generator import LoadPlan, Tally, run_load
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline_tests.service_process import service_running

CONNECTIONS: Final = 16
WARM_S: Final = 8.0
"""A service that has just started still stalls for tenths of a second now and then, promotions or not."""


def main() -> None:
    """Measure and print; the JSON object comes last. Exit code 1 if a request failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", help="an existing home with a champion; by default a small one is made and removed")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=30.0, help="with promotions, and as long without")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between promotions")
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    with trained_home(options.home) as home:
        result = run(home, rate=options.rate, seconds=options.seconds, every_s=options.every)
    if not options.json:
        for name in ("before", "during", "after"):
            print(f"{name:<8} {result[name]}")
        print(f"{result['promotions']} promotions, {result['failed']} failed requests, p99 x {result['p99_ratio']}")
    print(json.dumps(result))
    raise SystemExit(1 if result["failed"] else 0)


def run(home: Path, *, rate: float, seconds: float, every_s: float) -> dict[str, Any]:
    """Load without, with, and again without promotions."""
    versions = second_version(home)
    with (
        tempfile.TemporaryDirectory(prefix="fraud-benchmark-logs-") as logs,
        service_running(Path(logs) / "service.log", environment=environment(home)) as service,
        Promoter(home, versions, every_s) as promoter,
    ):
        traffic = traffic_of(home)

        def load(duration_s: float) -> Tally:
            plan = LoadPlan(url=f"{service.url}/score", duration_s=duration_s, rate=rate, connections=CONNECTIONS)
            return run_load(plan, traffic.body)

        load(WARM_S)
        say("without promotions")
        before = load(seconds / 2)
        say(f"a promotion every {every_s:g} s")
        promoter.begin()
        during = load(seconds)
        promotions = promoter.end()
        load(WARM_S)
        say("without promotions")
        after = load(seconds / 2)
    without_s = (before.quantile_s(0.99) + after.quantile_s(0.99)) / 2
    return {
        "failed": before.failed + during.failed + after.failed,
        "p99_ratio": round(during.quantile_s(0.99) / without_s, 3),
        "promotions": promotions,
        "versions_seen": len(during.versions),
        "rate": rate,
        "before": summary(before),
        "during": summary(during),
        "after": summary(after),
    }


def summary(tally: Tally) -> dict[str, Any]:
    """What a load came to."""
    return {
        "p50_ms": round(tally.quantile_s(0.5) * 1e3, 3),
        "p99_ms": round(tally.quantile_s(0.99) * 1e3, 3),
        "max_ms": round(tally.slowest_s * 1e3, 3),
        "answered": tally.answered,
        "model_versions": dict(tally.versions),
        "problems": tally.problems,
    }


class Promoter:
    """A process that promotes two versions in turn; a context manager."""

    def __init__(self, home: Path, versions: tuple[int, int], every_s: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=promote_in_turn, args=(theirs, environment(home), versions, every_s))

    def __enter__(self) -> Promoter:
        self._process.start()
        self._pipe.recv()  # the registry is open
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._pipe.send("end")
            self._process.join(30)
        if self._process.is_alive():
            self._process.terminate()

    def begin(self) -> None:
        """The first promotion comes after the interval."""
        self._pipe.send("begin")

    def end(self) -> int:
        """Stop; how many there were."""
        self._pipe.send("end")
        made = int(self._pipe.recv())
        self._process.join(30)
        return made


def promote_in_turn(pipe: Connection, variables: dict[str, str], versions: tuple[int, int], every_s: float) -> None:
    """In a process of its own: make the second version champion, then the first, and so on, until told to end.

    Only the ledger's row is written, which is what the service watches; MLflow's alias, seconds of another process's work
    on the same cores, is set once at the end.
    """
    os.environ.update(variables)
    from fraud_pipeline.adapters.promotions import repair_alias
    from fraud_pipeline.commands.opening import open_ledger, open_registry
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    registry = open_registry(settings)
    fingerprints = {version: registry.version(version).fingerprint for version in versions}
    made = 0
    with open_ledger(settings) as ledger:
        pipe.send("ready")
        if pipe.recv() != "begin":
            return
        while not pipe.poll(every_s):
            version = versions[(made + 1) % 2]
            append_promotion(ledger, version, fingerprints[version])
            made += 1
        pipe.send(made)
        repair_alias(ledger, registry)


def append_promotion(ledger: Ledger, version: int, fingerprint: str) -> None:
    """The row that makes a version champion."""
    before = ledger.promotions()[-1]
    ledger.append_promotion(
        Promotion(
            promotion_id=before.promotion_id + 1, previous_id=before.promotion_id, kind="forced", version=version,
            fingerprint=fingerprint, previous_version=before.version, who="benchmark", reason="benchmarks.swap",
            promoted_at=datetime.now(UTC),
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
