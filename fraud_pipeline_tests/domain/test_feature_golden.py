"""A definition hash stands for what a value is: where values move, the feature's `revision` must be raised.

The digests are of values over one made-up history, to 5 digits, so that another machine's `log1p` or `sin` does not matter.
After a change that is meant: raise `revision` in feature_spec.py, then `python -m fraud_pipeline_tests.domain.test_feature_golden`.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_columns import EventColumns, Ids, LabelColumns
from fraud_pipeline.domain.feature_spec import FEATURES

GOLDEN = Path(__file__).parent / "golden_features.json"
HOUR = 3_600_000_000
ROWS = 3_000


def chance(rows: int, seed: int) -> np.ndarray:
    """Numbers in [0, 1) from a linear congruential generator, which no numpy version changes."""
    out, x = np.empty(rows), seed
    for i in range(rows):
        x = (6364136223846793005 * x + 1442695040888963407) % 2**64
        out[i] = (x >> 11) / 2**53
    return out


def ids(rows: int, seed: int, n: int, *, missing: float = 0.0) -> Ids:
    codes = (chance(rows, seed) * n).astype(np.int32)
    codes[chance(rows, seed + 1) < missing] = -1
    return Ids(codes, tuple(f"{seed}-{i}" for i in range(n)))


def history() -> tuple[EventColumns, LabelColumns]:
    """100 days of 40 customers at 25 merchants; one payment in 20 is labelled, 1 to 20 days later."""
    time = (np.cumsum(chance(ROWS, 1)) * 1.6 * HOUR).astype(np.int64) + 1_750_000_000_000_000
    place = np.where(chance(ROWS, 2) < 0.3, np.nan, chance(ROWS, 3) * 120 - 60)
    events = EventColumns(
        time=time, amount=(chance(ROWS, 4) ** 3 * 1e5).astype(np.int64), latitude=place, longitude=place * 2,
        utc_offset_s=np.zeros(ROWS, np.int32), customer=ids(ROWS, 10, 40), merchant=ids(ROWS, 20, 25),
        category=ids(ROWS, 30, 5), country=ids(ROWS, 40, 4, missing=0.2), channel=ids(ROWS, 50, 3),
        device=ids(ROWS, 60, 50, missing=0.3),
    )  # fmt: skip
    labelled = np.flatnonzero(chance(ROWS, 5) < 0.05)
    known = events.time[labelled] + (24 * HOUR * (1 + 19 * chance(len(labelled), 6))).astype(np.int64)
    labels = LabelColumns(
        known_at=known, event_time=events.time[labelled], change=np.ones(len(labelled), np.int8),
        merchant=events.merchant.take(labelled), category=events.category.take(labelled),
        country=events.country.take(labelled), channel=events.channel.take(labelled),
    )  # fmt: skip
    return events, labels


def digests() -> dict[str, list[str]]:
    """Definition hash and digest of the values, by feature."""
    values = compute_features(*history()).values.astype(np.float64)
    found = {}
    for i, feature in enumerate(FEATURES):
        text = " ".join(f"{value:.4e}" for value in values[:, i])
        found[feature.name] = [feature.definition_hash, hashlib.sha256(text.encode()).hexdigest()[:16]]
    return found


def test_values_move_only_together_with_their_definition_hash():
    golden = json.loads(GOLDEN.read_text())
    found = digests()
    silent = [
        name
        for name, (definition, digest) in found.items()
        if name in golden and golden[name][0] == definition and golden[name][1] != digest
    ]
    assert silent == [], "these values changed under the same definition hash: raise their revision in feature_spec.py"
    assert found == golden, "write the golden file again: python -m fraud_pipeline_tests.domain.test_feature_golden"


def test_the_made_up_history_exercises_every_feature():
    values = compute_features(*history()).values
    idle = [f.name for i, f in enumerate(FEATURES) if len(np.unique(values[~np.isnan(values[:, i]), i])) < 2]
    assert idle == []


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(digests(), indent=1) + "\n")
