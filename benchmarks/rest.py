"""`/score` of the real service against an endpoint that does nothing, both served by BentoML: `python -m benchmarks.rest`.

Both run at once, each in one worker without a line per request, and are asked in turn, with the same bodies, by the same
client on the same cores: at 1 and at 16 connections, closed loop. Then `/score_batch`, and from the service's own
histograms the mean time by stage.

    python -m benchmarks.rest [--home HOME] [--seconds 4] [--rounds 3] [--json]

A home that is given must be one whose ledger may take the payments.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.serving_home import environment, say, traffic_of, trained_home
from fraud_pipeline.adapters.load_generator import LoadPlan, Tally, run_load
from fraud_pipeline.adapters.simulated_traffic import SimulatedTraffic
from fraud_pipeline_tests.service_process import service_running

CONNECTIONS: Final = (1, 16)
BATCHES: Final = (1_000, 5_000)
BATCH_ROWS: Final = 20_000
"""Of each measurement: 20 batches of 1,000, 4 of 5,000."""
WARM_S: Final = 2.0
EMPTY_SERVICE: Final = "benchmarks.empty_service:EmptyService"
FOREVER_S: Final = 600.0


def main() -> None:
    """Measure and print; the JSON object comes last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", help="an existing home with a champion; by default a small one is made and removed")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind; the median counts")
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    with trained_home(options.home) as home:
        result = run(home, seconds=options.seconds, rounds=options.rounds)
    if not options.json:
        print_result(result)
    print(json.dumps(result))


def run(home: Path, *, seconds: float, rounds: int) -> dict[str, Any]:
    """Start both services, ask both, compare."""
    with (
        tempfile.TemporaryDirectory(prefix="fraud-benchmark-logs-") as logs,
        service_running(Path(logs) / "empty.log", service=EMPTY_SERVICE) as empty,
        service_running(Path(logs) / "score.log", environment=environment(home)) as scoring,
    ):
        traffic = traffic_of(home)
        urls = {"empty": f"{empty.url}/score", "score": f"{scoring.url}/score"}
        for url in urls.values():
            measured(LoadPlan(url=url, duration_s=WARM_S), traffic.body)
        before = stage_sums(scoring.url)
        by_connections = {c: side_by_side(urls, traffic, c, seconds=seconds, rounds=rounds) for c in CONNECTIONS}
        stages = stage_means(before, stage_sums(scoring.url))
        batches = {size: batch(scoring.url, traffic, size) for size in BATCHES}
    most = by_connections[max(CONNECTIONS)]
    return {
        "latency_ratio": most["latency_ratio"],
        "throughput_ratio": most["throughput_ratio"],
        "batch_rows_per_s": min(one["rows_per_s"] for one in batches.values()),
        "connections": by_connections,
        "batch": batches,
        "stages_us": stages,
        "ledger": "SQLite",
    }


def side_by_side(
    urls: dict[str, str], traffic: SimulatedTraffic, connections: int, *, seconds: float, rounds: int
) -> dict[str, Any]:
    """Both in turn, `rounds` times; medians, and the ratio of each (1 is as good as doing nothing)."""
    runs: dict[str, list[Tally]] = {name: [] for name in urls}
    for turn in range(rounds):
        say(f"{connections} connections, round {turn + 1} of {rounds}")
        for name, url in urls.items():
            plan = LoadPlan(url=url, duration_s=seconds, connections=connections)
            runs[name].append(measured(plan, traffic.body))
    found = {name: summary(tallies) for name, tallies in runs.items()}
    return {
        **found,
        "latency_ratio": round(found["score"]["p50_ms"] / found["empty"]["p50_ms"], 3),
        "throughput_ratio": round(found["empty"]["requests_per_s"] / found["score"]["requests_per_s"], 3),
    }


def summary(tallies: list[Tally]) -> dict[str, float]:
    """Medians over the rounds."""
    return {
        "p50_ms": round(statistics.median(t.quantile_s(0.5) for t in tallies) * 1e3, 3),
        "p99_ms": round(statistics.median(t.quantile_s(0.99) for t in tallies) * 1e3, 3),
        "requests_per_s": round(statistics.median(t.answered / t.elapsed_s for t in tallies), 1),
    }


def batch(url: str, traffic: SimulatedTraffic, size: int) -> dict[str, float]:
    """Rows a second by `/score_batch` at 1 and 16 connections, of bodies that were made before the clock starts."""
    say(f"batches of {size:,}")
    rates, alerts = {}, 0
    for connections in CONNECTIONS:
        bodies = [traffic.batch(size) for _ in range(BATCH_ROWS // size)]
        plan = LoadPlan(url=f"{url}/score_batch", duration_s=FOREVER_S, requests=len(bodies), connections=connections)
        tally = measured(plan, iter(bodies).__next__)
        rates[connections] = round(tally.decisions.total() / tally.elapsed_s, 1)
        alerts += tally.decisions.total() - tally.decisions["APPROVE"]
    return {
        "rows_per_s": rates[max(CONNECTIONS)],
        "rows_per_s_of_one_connection": rates[min(CONNECTIONS)],
        "alert_share": round(alerts / (len(CONNECTIONS) * BATCH_ROWS), 4),  # reasons cost as much as the rest
    }


def measured(plan: LoadPlan, bodies: Callable[[], bytes]) -> Tally:
    """One load in which nothing may fail."""
    tally = run_load(plan, bodies)
    if tally.failed or not tally.answered:
        raise SystemExit(f"{plan.url}: {tally.failed} of {tally.answered} requests failed: {tally.problems}")
    return tally


def stage_sums(url: str) -> dict[str, tuple[float, float]]:
    """Seconds and payments of each stage so far."""
    text = httpx.get(f"{url}/metrics", timeout=10).raise_for_status().text
    pattern = r'^fraud_score_stage_seconds_%s\{[^}]*stage="([a-z_]+)"[^}]*\} (\S+)$'
    sums, counts = (dict(re.findall(pattern % kind, text, re.MULTILINE)) for kind in ("sum", "count"))
    return {stage: (float(sums[stage]), float(counts[stage])) for stage in sums}


def stage_means(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Mean microseconds of each stage in between."""
    means = {}
    for stage, (seconds, count) in after.items():
        seconds_before, count_before = before.get(stage, (0.0, 0.0))
        if count > count_before:
            means[stage] = round((seconds - seconds_before) / (count - count_before) * 1e6, 1)
    return means


def print_result(result: dict[str, Any]) -> None:
    """For people."""
    for connections, found in result["connections"].items():
        for name in ("empty", "score"):
            print(
                f"{connections:>3} connections  {name:<6} p50 {found[name]['p50_ms']:>8.3f} ms  p99 "
                f"{found[name]['p99_ms']:>8.3f} ms  {found[name]['requests_per_s']:>8.1f} requests/s"
            )
        print(f"{'':17}ratio  p50 {found['latency_ratio']:.2f}  throughput {found['throughput_ratio']:.2f} (bar 1.5)")
    for size, found in result["batch"].items():
        print(f"batches of {size:>5}: {found['rows_per_s']:,.0f} rows/s (bar 20,000)")
    print("mean us by stage: " + ", ".join(f"{name} {value:g}" for name, value in result["stages_us"].items()))


if __name__ == "__main__":
    main()
