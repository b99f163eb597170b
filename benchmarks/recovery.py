"""A scorer that was killed comes back: `python -m benchmarks.recovery [--rows 300000] [--json]`; bar 100,000 payments/s replayed.

Payments are decided, the scorer is killed, its checkpoints are taken away, and another one takes over: it replays the whole log
without deciding and then decides one more payment. The time from the kill to that decision has the dead one's session in it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import bare_loop
from benchmarks.serving_home import say, traffic_of, trained_home
from benchmarks.stream import PREFIX, Scorer, fill, measured_rate, reached_rows
from fraud_pipeline.adapters.kafka.topic_admin import create
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.settings import Settings

PARTITIONS: Final = 4
_REPLAYED: Final = re.compile(r"(\d+) records were replayed in ([\d.]+) s")


def main() -> None:
    """Decide, kill, come back, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--home", help="a home with a champion, such as `make demo` leaves")
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    with (
        trained_home(options.home) as home,
        bare_loop.broker() as address,
        tempfile.TemporaryDirectory(prefix="fraud-recovery-") as folder,
    ):
        result = run(home, address, Path(folder), options.rows)
    if not options.json:
        for name, value in result.items():
            print(f"{name:>28}  {value:,}")
    print(json.dumps(result))


def run(home: Path, address: str, folder: Path, rows: int) -> dict[str, Any]:
    """Everything, with its numbers."""
    settings, topics = Settings(home=home, kafka_bootstrap_servers=address, topic_prefix=PREFIX), Topics(PREFIX)
    create(settings, topics, partitions=PARTITIONS)
    own = folder / "home"
    shutil.copytree(home, own)
    traffic = traffic_of(home)
    say(f"producing {rows:,} payments, deciding them")
    fill(settings, topics, traffic, rows)
    first = Scorer(own, address, folder, 1)
    measured_rate(settings, topics, PARTITIONS, rows)
    first.process.kill()
    first.process.wait()
    killed = time.perf_counter()
    shutil.rmtree(own / "checkpoints" / "stream", ignore_errors=True)
    say("another one takes over, without any checkpoint")
    fill(settings, topics, traffic, 1)
    second = Scorer(own, address, folder, 2)
    try:
        decided = reached_rows(settings, topics, PARTITIONS, rows + 1)
    finally:
        second.stop()
    said = [(int(count), float(seconds)) for count, seconds in _REPLAYED.findall(second.log.read_text())]
    replayed, seconds = sum(count for count, _ in said), sum(taken for _, taken in said)
    return {
        "rows": rows,
        "replayed": replayed,
        "replayed_per_s": round(replayed / seconds),
        "kill_to_decision_s": round(decided - killed, 2),
        "of_which_replay_s": round(seconds, 2),
    }


if __name__ == "__main__":
    main()
