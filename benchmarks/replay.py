"""Replay of the log into the live state: `python -m benchmarks.replay [--rows 300000] [--json]`; bar 100,000 payments/s.

A ledger (SQLite) is filled with simulated payments and their decisions' rows as the service writes them; then a state is
recovered from nothing but that log, and again from a checkpoint at its end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.decision import live_payments
from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.adapters.ledger_writer import LedgerWriter
from fraud_pipeline.adapters.live_state import LiveStateStore
from fraud_pipeline.domain.feature_batch import warm
from fraud_pipeline.domain.simulation import World, WorldConfig

GROUP: Final = 2_000
MOMENT: Final = datetime(2026, 3, 1, tzinfo=UTC)
FEATURES: Final = b"\0" * 260
PAYLOAD: Final = "{}".ljust(400)


def main() -> None:
    """Fill, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--json", action="store_true", help="print only the JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fraud-replay-") as folder:
        result = run(Path(folder), options.rows)
    if not options.json:
        for name, value in result.items():
            print(f"{name:>24}  {value:,}")
    print(json.dumps(result))


def run(home: Path, rows: int) -> dict[str, Any]:
    """Everything, with its times."""
    warm()
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        fill(ledger, rows)
        states = LiveStateStore(home, CheckpointStore(f"file://{home / 'checkpoints'}"), ledger)
        started = time.perf_counter()
        live = states.recover()
        replayed = time.perf_counter()
        states.keep(live)
        kept = time.perf_counter()
        states.recover()
        return {
            "rows": rows,
            "replay_rows_per_s": round(rows / (replayed - started)),
            "checkpoint_s": round(kept - replayed, 2),
            "start_from_checkpoint_s": round(time.perf_counter() - kept, 2),
            "ledger_bytes_per_payment": round((home / "ledger.db").stat().st_size / rows),
        }


def fill(ledger: Ledger, rows: int) -> None:
    """The log as the service writes it."""
    world = World(WorldConfig(end=MOMENT.date(), customers=max(500, rows // 50), days=10))
    writer = LedgerWriter.open(ledger.database)
    group: list[LedgerEntry] = []
    for entry in entries(world, rows):
        group.append(entry)
        if len(group) == GROUP:
            writer.append(group)
            group = []
    if group:
        writer.append(group)
    writer.close()


def entries(world: World, rows: int) -> Iterator[LedgerEntry]:
    """Payments with decisions of the usual size."""
    for payment in live_payments(world, rows):
        record = DecisionRecord(payment.transaction_id, MOMENT, "APPROVE", 0.01, "1", PAYLOAD, FEATURES)
        yield LedgerEntry(payment, payment.event_time, decision=record)


if __name__ == "__main__":
    main()
