"""What was served against batch: the vectors that decisions were made on, recomputed from the log, bit for bit.

The log and the history before it are all that batch gets. A mutation harms the batch side on purpose and must be found.
Knows nothing of how the payments came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_log import LogPage
from fraud_pipeline.adapters.ledger_records import LOCAL_WRITER, DecisionRecord
from fraud_pipeline.adapters.live_state import LiveState, advance
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.parity import Mutation

BundleOf = Callable[[str], ModelBundle]
"""A bundle by the version that decisions carry."""
_EXTRA: Final = ("transaction_id", "attributes")
_CODED: Final = ("merchant_category", "channel", "country")


@dataclass
class ServedParity:
    """What was compared and what differed; `first_difference` names the payment, the input and both values."""

    rows: int = 0
    labels: int = 0
    undecided: int = 0
    degraded: int = 0
    compared_values: int = 0
    differing_values: int = 0
    versions: dict[str, int] = field(default_factory=dict)
    first_difference: dict[str, Any] | None = None
    mutation: Mutation | None = None

    @property
    def equal(self) -> bool:
        """Something was compared, and nothing differs."""
        return self.rows > 0 and self.differing_values == 0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "equal": self.equal}


def compare_served(
    ledger: Ledger,
    base: LiveState,
    bundle_of: BundleOf,
    *,
    time_zone: str,
    mutate: Mutation | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ServedParity:
    """Recompute every decision's vector over the log of writer `local`; `base` is advanced to the log's end."""
    report = ServedParity(mutation=mutate)
    until = ledger.last_sequence(LOCAL_WRITER)
    for number, page in enumerate(ledger.log_pages(LOCAL_WRITER, after=base.sequence, until=until, extra=_EXTRA)):
        harmed = _without_a_row(page, mutate) if number == 0 else page
        values = advance(base, harmed, time_zone)
        if mutate == "ulp" and number == 0:
            values[len(values) // 2, 0] = np.nextafter(values[len(values) // 2, 0], np.float32(np.inf))
        report.labels += page.labels.num_rows
        _compare(report, ledger, harmed, values, bundle_of)
        if progress is not None:
            progress(page.last, until)
    return report


def _compare(
    report: ServedParity, ledger: Ledger, page: LogPage, values: npt.NDArray[np.float32], bundle_of: BundleOf
) -> None:
    ids = page.events["transaction_id"].to_pylist()
    decided = {record.transaction_id: record for record in ledger.decided(ids)}
    report.undecided += sum(identity not in decided for identity in ids)
    by_version: dict[str, list[int]] = {}
    for place, identity in enumerate(ids):
        if identity in decided:
            by_version.setdefault(decided[identity].model_version, []).append(place)
    for version, places in by_version.items():
        bundle = bundle_of(version)
        batch = bundle.inputs.matrix(values[places], **_columns(page, places, bundle))
        served = np.stack([np.frombuffer(decided[ids[place]].features, dtype="<f4") for place in places])
        differing = batch.view(np.uint32) != served.astype(np.float32).view(np.uint32)
        report.rows += len(places)
        report.versions[version] = report.versions.get(version, 0) + len(places)
        report.degraded += sum(_is_degraded(decided[ids[place]]) for place in places)
        report.compared_values += differing.size
        report.differing_values += int(differing.sum())
        if report.first_difference is None and differing.any():
            row, column = (int(each[0]) for each in np.nonzero(differing))
            report.first_difference = {
                "transaction_id": ids[places[row]],
                "sequence": page.events["sequence"][places[row]].as_py(),
                "input": bundle.input_names[column],
                "batch": float(batch[row, column]),
                "served": float(served[row, column]),
            }


def _columns(page: LogPage, places: list[int], bundle: ModelBundle) -> dict[str, Any]:
    """Attributes and coded fields of the chosen payments."""
    chosen = page.events.take(places)
    found = [
        orjson.loads(text) if isinstance(text, str) else dict(text or {}) for text in chosen["attributes"].to_pylist()
    ]
    names = bundle.facts.model_input.attributes
    attributes = {name: np.array([each.get(name, np.nan) for each in found], np.float64) for name in names}
    return {"attributes": attributes, "fields": {name: chosen[name].to_pylist() for name in _CODED}}


def _is_degraded(record: DecisionRecord) -> bool:
    return bool(orjson.loads(record.payload)["degraded"])


def _without_a_row(page: LogPage, mutate: Mutation | None) -> LogPage:
    """The page as it is, or with one of its payments or labels missing."""
    if mutate == "drop_event":
        keep = list(_all_but(page.events.num_rows, page.events.num_rows // 2))
        events = page.events.take(keep)
        positions = np.searchsorted(events["sequence"].to_numpy(), page.labels["sequence"].to_numpy())
        return replace(page, events=events, positions=positions.astype(np.int64))
    if mutate == "drop_label" and page.labels.num_rows:
        kept = list(_all_but(page.labels.num_rows, 0))
        return replace(page, labels=page.labels.take(pa.array(kept, pa.int64())), positions=page.positions[kept])
    return page


def _all_but(count: int, left_out: int) -> Iterator[int]:
    return (place for place in range(count) if place != left_out)
