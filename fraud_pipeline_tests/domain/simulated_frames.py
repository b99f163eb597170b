"""Simulated worlds as pandas frames, which tests can read at a glance."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from fraud_pipeline.domain.simulation import SimulatedDay


def frame(columns: Any) -> pd.DataFrame:
    """Byte strings as str, empty ones as None."""
    texts = {name: pd.Series(v.astype(str)) if v.dtype.kind == "S" else pd.Series(v) for name, v in columns.items()}
    table = pd.DataFrame(texts)
    for name in ("country", "device_id"):
        if name in table:
            table[name] = table[name].where(table[name] != "", None)
    return table


def whole(days: Iterable[SimulatedDay]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Transactions (with `kind`, `honest` for most, `campaign_id` and `amount`), labels and truth of days, in order."""
    made = list(days)
    payments, labels, truth = (
        pd.concat([frame(getattr(day, part)) for day in made], ignore_index=True)
        for part in ("transactions", "labels", "truth")
    )
    known = truth.set_index("transaction_id")
    payments["kind"] = payments["transaction_id"].map(known["kind"]).fillna("honest")
    payments["campaign_id"] = payments["transaction_id"].map(known["campaign_id"])
    payments["amount"] = payments["amount_minor"] / 100
    return payments, labels, truth


def same(left: SimulatedDay, right: SimulatedDay) -> bool:
    """Whether two days hold the same bits."""
    parts = ((left.transactions, right.transactions), (left.labels, right.labels), (left.truth, right.truth))
    return all(
        a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a) for a, b in parts
    ) and not any(np.shares_memory(a[name], b[name]) for a, b in parts for name in a if len(a[name]))
