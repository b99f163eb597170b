"""One logged decision executed again: from its logged vector, and from the vector that its log gives, and where they part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.past_log import PastLog
from fraud_pipeline.adapters.replay import BundleOf, differences
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision, decide_on
from fraud_pipeline.domain.feature_spec import FEATURES
from fraud_pipeline.errors import NotFound

SHARED_INPUTS: Final = frozenset(
    feature.name for feature in FEATURES if feature.entity not in ("transaction", "customer")
)
"""Inputs that depend on what customers share."""
LACKS_SHARED: Final = frozenset({"shared_state_lag", "state_view", "log"})
"""Said of a decision, its shared inputs may differ: others' minutes were missing; or the customer's last payments, as of which
they are read; or the log, where others' payments may have come first."""
LACKS_OWN: Final = frozenset({"state_view"})
"""Said of a decision, all other inputs may differ too."""


@dataclass(frozen=True, slots=True)
class FeatureDifference:
    """One input whose two values have other bits; None is a missing value."""

    feature: str
    logged: float | None
    recomputed: float | None


@dataclass(frozen=True, slots=True)
class CheckedDecision:
    """`executed`: where a decision on the logged vector parts from the logged one; `features`: where the vectors part.

    `lagging` are inputs that differ and that the decision says it lacked (`may_differ`). `recomputed` is what would be decided on
    the recomputed vector, where that is another one. `place` is None where no log that was asked has the payment, and then
    nothing was recomputed.
    """

    decision: Decision
    place: str | None
    executed: dict[str, list[Any]]
    features: tuple[FeatureDifference, ...]
    recomputed: Decision | None
    lagging: tuple[FeatureDifference, ...] = ()

    @property
    def equal(self) -> bool:
        """Executed and recomputed, and nothing differs but what the decision says that it lacked."""
        return self.place is not None and not self.executed and not self.features

    def to_json(self) -> dict[str, Any]:
        given = self.decision
        again = self.recomputed
        return {
            "transaction_id": given.transaction_id,
            "decision": given.decision,
            "model_version": given.model_version,
            "decided_at": given.decided_at,
            "degraded": given.degraded,
            "place": self.place,
            "equal": self.equal,
            "executed_differences": self.executed,
            "feature_differences": [asdict(each) for each in self.features],
            "lagging_differences": [asdict(each) for each in self.lagging],
            "recomputed_decision": None if again is None else again.as_dict(),
        }


def check_decision(
    ledger: Ledger, logs: Sequence[PastLog], bundle_of: BundleOf, transaction_id: str, *, control_share: float
) -> CheckedDecision:
    """Raises NotFound where the ledger has no decision on it, StateError for a gap in the log before it."""
    record = ledger.decision(transaction_id)
    if record is None:
        raise NotFound(f"The ledger has no decision on {transaction_id}.", remedy="Check the id.")
    given = Decision.from_json(record.payload, features=record.features)
    bundle = bundle_of(given.model_version)

    def decided(vector: npt.NDArray[np.float32]) -> Decision:
        return decide_on(
            vector, bundle, transaction_id=given.transaction_id, event_time=given.event_time,
            decided_at=given.decided_at, control_share=control_share, degraded=given.degraded,
        )  # fmt: skip

    logged = given.vector.copy()
    executed = _of_another_shape(logged, bundle) or differences(given, decided(logged))
    for log in logs:
        found = log.payment(transaction_id)
        if found is None:
            continue
        vector = bundle.inputs.vector(found.computed[0], found.transactions[0])
        parted = _parted(logged, vector, bundle.input_names)
        lagging = tuple(each for each in parted if may_differ(given.degraded, is_shared=each.feature in SHARED_INPUTS))
        place = f"{found.writer}@{found.sequences[0]}"
        return CheckedDecision(
            given, place, executed, tuple(each for each in parted if each not in lagging),
            decided(vector) if parted else None, lagging,
        )  # fmt: skip
    return CheckedDecision(given, None, executed, (), None)


def may_differ(degraded: Sequence[str], *, is_shared: bool) -> bool:
    """Whether an input of a decision with these words may part from what its log gives."""
    return not (LACKS_SHARED if is_shared else LACKS_OWN).isdisjoint(degraded)


def _of_another_shape(logged: npt.NDArray[np.float32], bundle: ModelBundle) -> dict[str, list[Any]]:
    """Said instead of a decision, where this bundle cannot have been given the vector."""
    if len(logged) == len(bundle.input_names):
        return {}
    return {"features": [f"{len(logged)} values", f"{len(bundle.input_names)} inputs of the bundle"]}


def _parted(
    logged: npt.NDArray[np.float32], recomputed: npt.NDArray[np.float32], names: Sequence[str]
) -> tuple[FeatureDifference, ...]:
    if len(logged) != len(recomputed):
        return (FeatureDifference("the number of inputs", float(len(logged)), float(len(recomputed))),)
    differ = (logged.view(np.uint32) != recomputed.view(np.uint32)) & ~(np.isnan(logged) & np.isnan(recomputed))
    return tuple(
        FeatureDifference(names[place], _shown(logged[place]), _shown(recomputed[place]))
        for place in np.flatnonzero(differ).tolist()
    )


def _shown(value: np.float32) -> float | None:
    return None if np.isnan(value) else float(value)
