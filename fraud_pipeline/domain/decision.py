"""`decide`: from a payment, the state before it and a bundle to a Decision; `decision_batch` does the same for many at once.

Pure apart from the clock passed in, which only measures. It does not update the state: the caller commits the decision
first and then applies the payment, so that a crash in between repeats rather than forgets. From the inputs that a Decision
keeps, `decide_on` makes the same Decision again, bit for bit but for `decided_at` and `processing_time_ms`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.explanation import Reason, strongest_reasons
from fraud_pipeline.domain.reasons import rising_contributions
from fraud_pipeline.domain.transaction import Transaction

Verdict = Literal["APPROVE", "REVIEW", "BLOCK"]

CONTROL_SHARE: Final = 0.01
"""Of BLOCKs, let through as REVIEW so that what the model blocks is still learned about."""
_CONTROL_SALT: Final = b"fraud.control"
"""The draw must not coincide with any other hash of the id that decides something."""
LITTLE_ENDIAN_FLOAT: Final = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Explained:
    """What comes with a REVIEW or a BLOCK; of an APPROVE there is nothing to say."""

    reasons: tuple[Reason, ...] = ()
    risk_factors: tuple[str, ...] = ()
    control: bool = False


UNEXPLAINED: Final = Explained()


class State(Protocol):
    """What a decision asks of the state: FeatureState in process, and the view that REST replicas read."""

    def read(self, transaction: Transaction) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one payment, and all that is needed to decide it again.

    `decision` compares `raw_score` with the bundle's thresholds; `fraud_probability` says it to people. `risk_factors` and
    `reasons` come with REVIEW and BLOCK. `control`: the score says BLOCK, and the payment was let through as REVIEW for the
    control share. `degraded` names what the decision had to do without. `features` is the input vector of the bundle that
    `model_version` names: float32, little-endian.
    """

    transaction_id: str
    event_time: datetime
    decided_at: datetime
    fraud_probability: float
    anomaly_score: float
    raw_score: float
    decision: Verdict
    risk_factors: tuple[str, ...]
    reasons: tuple[Reason, ...]
    model_version: str
    feature_schema: str
    processing_time_ms: float
    features: bytes
    control: bool = False
    degraded: tuple[str, ...] = ()

    @property
    def vector(self) -> NDArray[np.float32]:
        """`features` as numbers [F']."""
        return np.frombuffer(self.features, dtype=LITTLE_ENDIAN_FLOAT)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, without the feature vector: what a caller is answered. Times in RFC 3339, in UTC."""
        times = {"event_time": _rfc3339(self.event_time), "decided_at": _rfc3339(self.decided_at)}
        return {**self._members(), **times}

    def _members(self) -> dict[str, Any]:
        """The same with times as they are: orjson writes them in RFC 3339."""
        return {
            "transaction_id": self.transaction_id,
            "event_time": self.event_time.astimezone(UTC),
            "decided_at": self.decided_at.astimezone(UTC),
            "fraud_probability": self.fraud_probability,
            "anomaly_score": self.anomaly_score,
            "raw_score": self.raw_score,
            "decision": self.decision,
            "risk_factors": list(self.risk_factors),
            "reasons": [reason._asdict() for reason in self.reasons],
            "model_version": self.model_version,
            "feature_schema": self.feature_schema,
            "processing_time_ms": self.processing_time_ms,
            "control": self.control,
            "degraded": list(self.degraded),
        }

    def to_json(self) -> bytes:
        """`as_dict` as UTF-8 JSON. The ledger and the log keep `features` beside it."""
        return orjson.dumps(self._members(), option=orjson.OPT_UTC_Z)

    @classmethod
    def from_json(cls, content: bytes | str, *, features: bytes) -> Decision:
        """The reverse of `to_json`; KeyError, TypeError or ValueError where it is not one."""
        stored: Mapping[str, Any] = orjson.loads(content)
        return cls(
            **{
                **stored,
                "event_time": datetime.fromisoformat(stored["event_time"]),
                "decided_at": datetime.fromisoformat(stored["decided_at"]),
                "risk_factors": tuple(stored["risk_factors"]),
                "reasons": tuple(Reason(**reason) for reason in stored["reasons"]),
                "degraded": tuple(stored["degraded"]),
                "features": features,
            }
        )


def decide(
    state: State,
    bundle: ModelBundle,
    transaction: Transaction,
    *,
    decided_at: datetime,
    control_share: float = CONTROL_SHARE,
    degraded: tuple[str, ...] = (),
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Decision:
    """Decide one payment from the state as it is before it. `clock` counts nanoseconds; `decided_at` is in UTC."""
    started = clock()
    vector = bundle.inputs.vector(state.read(transaction), transaction)
    return decide_on(
        vector, bundle, transaction_id=transaction.transaction_id, event_time=transaction.event_time,
        decided_at=decided_at, control_share=control_share, degraded=degraded, started=started, clock=clock,
    )  # fmt: skip


def decide_on(
    vector: NDArray[np.float32],
    bundle: ModelBundle,
    *,
    transaction_id: str,
    event_time: datetime,
    decided_at: datetime,
    control_share: float = CONTROL_SHARE,
    degraded: tuple[str, ...] = (),
    started: int | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Decision:
    """Decide from an input vector [F'] of the bundle: the second half of `decide`, and how a decision is made again.

    `started` is the clock's count when the work began, default now.
    """
    if started is None:
        started = clock()
    scores = bundle.score(vector.reshape(1, -1))
    raw, anomaly = float(scores.raw[0]), float(scores.anomaly[0])
    verdict, control = verdict_on(raw, bundle, transaction_id, control_share=control_share)
    why = UNEXPLAINED
    if verdict != "APPROVE":
        why = explained(vector, bundle, anomaly=anomaly, control=control)
    return Decision(
        transaction_id=transaction_id,
        event_time=event_time,
        decided_at=decided_at,
        fraud_probability=float(scores.probability[0]),
        anomaly_score=anomaly,
        raw_score=raw,
        decision=verdict,
        risk_factors=why.risk_factors,
        reasons=why.reasons,
        model_version=bundle.version,
        feature_schema=bundle.feature_schema,
        processing_time_ms=(clock() - started) / 1e6,
        features=vector.astype(LITTLE_ENDIAN_FLOAT, copy=False).tobytes(),
        control=control,
        degraded=degraded,
    )


def in_control_share(transaction_id: str, share: float) -> bool:
    """Whether a payment is drawn for the control share: by a hash of its id, so everywhere and always alike."""
    digest = hashlib.blake2b(transaction_id.encode(), digest_size=8, person=_CONTROL_SALT).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def verdict_on(raw: float, bundle: ModelBundle, transaction_id: str, *, control_share: float) -> tuple[Verdict, bool]:
    """What a raw score means, and whether the payment is let through for the control share."""
    thresholds = bundle.thresholds
    if raw >= thresholds.block:
        control = in_control_share(transaction_id, control_share)
        return ("REVIEW" if control else "BLOCK"), control
    return ("REVIEW" if raw >= thresholds.review else "APPROVE"), False


def explained(vector: NDArray[np.float32], bundle: ModelBundle, *, anomaly: float, control: bool) -> Explained:
    """What goes with a REVIEW or a BLOCK on an input vector [F']."""
    rising = rising_contributions(bundle.contributions(vector))
    return Explained(
        reasons=strongest_reasons(bundle.input_names, vector, rising),
        risk_factors=bundle.risk_table.risk_factors(vector, rising, anomaly_score=anomaly),
        control=control,
    )


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
