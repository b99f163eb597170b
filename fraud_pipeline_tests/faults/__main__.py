"""`python -m fraud_pipeline_tests.faults --faults 200 --seed 7 --json`."""

from __future__ import annotations

import argparse
import json
import logging
import secrets
import signal
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fraud_pipeline_tests.faults.feed import QUIET
from fraud_pipeline_tests.faults.kinds import FAULTS
from fraud_pipeline_tests.faults.rig import Plan
from fraud_pipeline_tests.faults.run import Report, forget, run


def main() -> int:
    """Exit code 1 where anything differs or did not come about in time; then the folder with everything stays."""
    asked = _arguments()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger(QUIET.name).setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started is ended
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="fraud-faults-"))
    folder.chmod(0o755)
    plan = Plan(
        seed=asked.seed, scorers=asked.scorers, rate=asked.rate, speed=asked.speed, behind=timedelta(hours=asked.behind)
    )
    report = run(folder, plan, asked.kinds or asked.faults)
    if report.equal and not asked.keep:
        forget(folder)
    else:
        report.kept = str(folder)
    if asked.json:
        sys.stdout.write(json.dumps(report.to_json(), indent=1) + "\n")
    show(report, Console(stderr=True))
    return 0 if report.equal else 1


def show(report: Report, console: Console) -> None:
    """For people."""
    said = report.to_json()
    console.print(_table(f"{said['faults']} faults, seed {said['seed']}", _kinds(report)))
    compared = said["comparison"] or {}
    rows = [(name.replace("_", " "), str(value)) for name, value in compared.items() if not isinstance(value, dict)]
    rows += [(name, f"{count:,} rows") for name, count in (said["rows"] or {}).items()]
    rows += [(f"differs: {name}", str(value)) for name, value in (said["differences"] or {}).items()]
    rows += [("ended unasked", f"{each['name']} with {each['code']}") for each in said["ended_unasked"]]
    rows += [(name.replace("_", " "), str(said[name])) for name in ("slow_stops", "failure", "kept") if said[name]]
    console.print(_table(f"against batch: {'equal' if report.equal else 'NOT EQUAL'}", rows))


def _kinds(report: Report) -> list[tuple[str, str]]:
    return [
        (
            kind.replace("_", " "),
            f"{each['faults']} x, decided after {each['median_s']} s, at worst {each['worst_s']} s",
        )
        for kind, each in report.by_kind().items()
    ]


def _table(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def _arguments() -> Any:
    parser = argparse.ArgumentParser(prog="python -m fraud_pipeline_tests.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=15, help="how many")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="the same seed, the same schedule")
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    parser.add_argument(
        "--kinds", nargs="*", choices=sorted(FAULTS), help="these, in this order, instead of a schedule"
    )
    parser.add_argument("--scorers", type=int, default=2, help="at the beginning")
    parser.add_argument("--rate", type=float, default=200.0, help="payments a second")
    parser.add_argument("--speed", type=float, default=60.0, help="seconds of event time in a second")
    parser.add_argument("--behind", type=float, default=2.0, help="hours by which the first event is old")
    parser.add_argument("--folder", type=Path, help="where everything lies; must be open to others for PostgreSQL")
    parser.add_argument("--keep", action="store_true", help="keep the folder, however it ends")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
