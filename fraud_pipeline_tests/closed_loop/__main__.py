"""`python -m fraud_pipeline_tests.closed_loop --drift inflation --json`."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fraud_pipeline_tests.closed_loop.feed import QUIET
from fraud_pipeline_tests.closed_loop.harm import FAULTS
from fraud_pipeline_tests.closed_loop.loop import ClosedLoop
from fraud_pipeline_tests.closed_loop.plan import KINDS, QUICK, Plan
from fraud_pipeline_tests.closed_loop.result import Result
from fraud_pipeline_tests.closed_loop.warm import cache_folder, copy, kept, make

KILLS = ("daemon", "code", "webserver", "service", "scorer", "sink")


def main() -> int:
    """Exit code 1 where a promise was broken; then the folder with logs, topics and databases stays."""
    asked = _arguments()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger(QUIET.name).setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started is ended
    console = Console(stderr=True)
    result = run(_plan(asked), console, keep=asked.keep, fresh=asked.fresh)
    if asked.json:
        sys.stdout.write(json.dumps(result.to_json(), indent=1, default=str) + "\n")
    if asked.figure is not None:
        from fraud_pipeline_tests.closed_loop.figure import draw

        draw(json.loads(json.dumps(result.to_json(), default=str)), asked.figure)
    show(result, console)
    return 0 if result.kept_its_promise else 1


def run(plan: Plan, console: Console, *, keep: bool = False, fresh: bool = False) -> Result:
    """One run in a folder of its own."""
    today = datetime.now(UTC).date()
    with console.status("looking for a warm home") as status:

        def tell(line: str) -> None:
            if console.is_terminal:
                status.update(line)
            if " day " in line:
                console.print(line, highlight=False)

        found = None if fresh else kept(plan.warm, today=today)
        if found is None:
            status.update(
                "making a warm home: a history of payments and its first champion (two minutes, then it is kept)"
            )
            found = make(plan.warm, today=today)
        source, end = found
        # Beside the kept one, where others may enter: as root, PostgreSQL is someone else.
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=cache_folder()))
        folder.chmod(0o755)
        copy(source, folder)
        result = ClosedLoop(folder, plan, end, tell).run()
    if result.kept_its_promise and not keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        result.kept = str(folder)
        (folder / "result.json").write_text(json.dumps(result.to_json(), indent=1, default=str))
    return result


def show(result: Result, console: Console) -> None:
    """For people."""
    said = result.to_json()
    title = f"{said['kind']}: {'as promised' if result.kept_its_promise else 'NOT as promised'}"
    table = Table("after", "day", "what", "", title=title, title_justify="left")
    for each in result.moments:
        table.add_row(f"{each.at_s:.1f} s", f"{each.day:.1f}", each.what, each.detail)
    console.print(table)
    rows = {
        name: said[name] for name in ("promoted", "failed_requests", "lost_messages", "pr_auc", "rolled_back", "kept")
    }
    facts = Table(show_header=False)
    for name, value in rows.items():
        facts.add_row(name.replace("_", " "), str(value))
    for promise in result.broken:
        facts.add_row("BROKEN", promise)
    console.print(facts)


def _plan(asked: Any) -> Plan:
    """The usual plan or the quick one, with what was asked for instead."""
    plan = QUICK if asked.quick else Plan()
    own = {name: getattr(asked, name) for name in ("customers", "days", "seed") if getattr(asked, name) is not None}
    names = ("kind", "day_s", "ahead", "kill", "fault", "later_days", "longest_days", "quiet_days")
    given = {name: getattr(asked, name) for name in names if getattr(asked, name) is not None}
    return replace(plan, warm=replace(plan.warm, **own), sabotage=not asked.no_sabotage, **given)


def _arguments() -> Any:
    parser = argparse.ArgumentParser(prog="python -m fraud_pipeline_tests.closed_loop", description=__doc__)
    parser.add_argument("--drift", choices=KINDS, dest="kind", help="what changes in the world (inflation)")
    parser.add_argument("--quick", action="store_true", help="the smallest world, and `covid`, the strongest drift")
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    parser.add_argument("--figure", type=Path, help="draw the timeline into this file")
    parser.add_argument("--kill", choices=KILLS, help="kill -9 this process in the middle, once")
    parser.add_argument("--fault", choices=sorted(FAULTS), help="what else goes wrong in the middle, once")
    parser.add_argument("--no-sabotage", action="store_true", help="end after the promotion")
    parser.add_argument("--day-seconds", type=float, dest="day_s", help="how long a simulated day takes at least")
    parser.add_argument("--ahead", type=int, help="ended days that may wait for the automation")
    parser.add_argument("--longest-days", type=int, help="simulated days at most")
    parser.add_argument("--quiet-days", type=int, help="days in which a world that needs no training must start none")
    parser.add_argument("--later-days", type=int, help="days after the swap on which both champions are compared")
    parser.add_argument("--customers", type=int)
    parser.add_argument("--history-days", type=int, dest="days")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--keep", action="store_true", help="keep the folder, however it ends")
    parser.add_argument("--fresh", action="store_true", help="make the warm home anew")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
