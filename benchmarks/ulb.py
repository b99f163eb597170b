"""The ULB credit-card payments: `python -m benchmarks.ulb --data FILE [--json]`. The first 80 % of the time trains, the rest tests."""

from __future__ import annotations

import numpy as np

from benchmarks.before_after import main
from benchmarks.imported import ImportedWorld, read_world
from benchmarks.learner import ULB

TRAINING_SHARE = 0.8


def split_at(world: ImportedWorld) -> int:
    """The row from which on it is tested."""
    first, last = int(world.event_time[0]), int(world.event_time[-1])
    return int(np.searchsorted(world.event_time, first + TRAINING_SHARE * (last - first)))


if __name__ == "__main__":
    main(__doc__, read=lambda path: read_world(path, "ulb"), split_at=split_at, params=ULB)
