"""The ULB credit-card payments: `python -m benchmarks.ulb --data FILE [--json]`. The first 80 % of the time trains, the rest tests.

The table has neither customers nor merchants: features of a customer's past are empty, and those of the one merchant only count the two
days. What is learned from is the payment itself: its components, its amount, its hour.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.before_after import main
from benchmarks.imported import ImportedWorld, read_world
from benchmarks.learner import ULB
from fraud_pipeline.domain.feature_spec import FEATURES
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX

TRAINING_SHARE = 0.8


def split_at(world: ImportedWorld) -> int:
    """The row from which on it is tested."""
    first, last = int(world.event_time[0]), int(world.event_time[-1])
    return int(np.searchsorted(world.event_time, first + TRAINING_SHARE * (last - first)))


def of_the_payment_alone(world: ImportedWorld) -> ImportedWorld:
    """The same payments with the columns that do not depend on others."""
    own = {feature.name for feature in FEATURES if feature.entity == "transaction" and feature.family == "amount"} | {
        "hour"
    }
    kept = [name.startswith(ATTRIBUTE_PREFIX) or name in own for name in world.feature_names]
    names = tuple(name for name, keep in zip(world.feature_names, kept, strict=True) if keep)
    return replace(world, features=np.ascontiguousarray(world.features[:, kept]), feature_names=names)


if __name__ == "__main__":
    main(__doc__, read=lambda path: of_the_payment_alone(read_world(path, "ulb")), split_at=split_at, params=ULB)
