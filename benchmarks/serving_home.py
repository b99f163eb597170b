"""A small trained home for the benchmarks over HTTP: one `fraud run` of a small world, and a second version where wanted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fraud_pipeline.adapters.simulated_traffic import SimulatedTraffic
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.simulation_config import WorldConfig

WORLD: Final = {
    "FRAUD_CUSTOMERS": "800",
    "FRAUD_MERCHANTS": "200",
    "FRAUD_DAYS": "60",
    "FRAUD_RATE": "2",
    "FRAUD_FRAUD_RATE": "0.03",
    "FRAUD_ALERT_BUDGET": "0.04",
    "FRAUD_MIN_PERIOD_FRAUDS": "40",
    "FRAUD_MAX_DECISION_MS": "1000",
}
"""Small, and with frauds enough to learn from: a champion in about a minute. The model has its usual size."""
DAYS_AGO: Final = 80
"""When the world's history ends: what it would have paid since is the traffic, at its own times, 120,000 payments."""
LONG_S: Final = "120"
"""Measured rather than cut off: a service that is slower than the bar answers too."""


@contextmanager
def trained_home(given: str | None) -> Iterator[Path]:
    """The home that was given, or a new one that is removed again; either has a champion."""
    if given:
        yield Path(given).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="fraud-benchmark-") as folder:
        home = Path(folder) / "home"
        say("making a small world and training on it, about a minute")
        fraud(home, "simulate", "--end", str(datetime.now(UTC).date() - timedelta(days=DAYS_AGO)))
        fraud(home, "run")
        yield home


def environment(home: Path) -> dict[str, str]:
    """The variables that a service of this home needs."""
    return {**WORLD, "FRAUD_HOME": str(home), "FRAUD_REQUEST_TIMEOUT_S": LONG_S, "FRAUD_DAGSTER_URL": ""}


def traffic_of(home: Path) -> SimulatedTraffic:
    """What the customers of the home's simulated world would have paid since its history ended, at those times."""
    world = SourceStore(home).manifest()
    made = {f.name: world.parameters[f.name] for f in fields(WorldConfig) if f.name in world.parameters}
    plain = {"end": world.end, "drifts": (), "label_delay_days": tuple(world.parameters["label_delay_days"])}
    return SimulatedTraffic(WorldConfig(**{**made, **plain}), at_their_times=True)


def fraud(home: Path, *arguments: str) -> dict[str, Any]:
    """One `fraud ... --json` in that home; what it printed."""
    command = [sys.executable, "-m", "fraud_pipeline.cli", *arguments, "--json"]
    done = subprocess.run(command, env={**os.environ, **environment(home)}, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise SystemExit(f"`fraud {' '.join(arguments)}` ended with {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def second_version(home: Path) -> tuple[int, int]:
    """The champion's number and that of another version, the same models with other thresholds, made where it is missing."""
    champion = int(fraud(home, "status")["champion"]["version"])
    others = [int(v["version"]) for v in fraud(home, "models", "list")["versions"] if int(v["version"]) != champion]
    if others:
        return champion, max(others)
    made = fraud(home, "models", "rethreshold", str(champion), "--alert-budget", "0.05")
    return champion, int(made["version"])


def say(text: str) -> None:
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)
