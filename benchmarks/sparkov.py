"""Sparkov payments on our features: `python -m benchmarks.sparkov --data FILE [--json]`. Trains before 2020-06-21 12:14, tests after."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from benchmarks.before_after import main
from benchmarks.imported import ImportedWorld, read_world
from benchmarks.learner import SPARKOV

SPLIT = datetime(2020, 6, 21, 12, 14, tzinfo=UTC)


def split_at(world: ImportedWorld) -> int:
    """The row from which on it is tested."""
    return int(np.searchsorted(world.event_time, int(SPLIT.timestamp()) * 1_000_000))


if __name__ == "__main__":
    main(
        __doc__,
        read=lambda path: read_world(path, "sparkov", codes=("merchant_category",)),
        split_at=split_at,
        params=SPARKOV,
    )
