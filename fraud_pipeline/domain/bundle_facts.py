"""What `bundle.json` says: everything about a bundle that is not a model or a sample."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np

from fraud_pipeline.domain.calibration import Calibrator, calibrator_from_dict
from fraud_pipeline.domain.model_input import ModelInput
from fraud_pipeline.domain.thresholds import Thresholds

BUNDLE_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where the served model comes from.

    `periods` are first and last day by name (`training` of the served model, `reference`, and those of the evaluation
    model); `params` is the whole recipe. `derived_from` is the fingerprint of the bundle whose thresholds were chosen anew.
    """

    data_fingerprint: str
    code_version: str
    as_of: datetime
    seed: int
    rows: int
    frauds: int
    periods: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    derived_from: str | None = None

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Lineage:
        periods = {name: (str(first), str(last)) for name, (first, last) in stored["periods"].items()}
        return cls(**{**stored, "as_of": datetime.fromisoformat(stored["as_of"]), "periods": periods})


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual for each input in the reference sample: its 10 %, 50 % and 90 % quantiles, NaN where it has no values."""

    low: tuple[float, ...]
    middle: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """The content of `bundle.json`.

    `metrics` has the numbers of both models by name (`evaluation`: the one that the gates judge, `served`: its refit),
    JSON-able. `importance` is the share of each input in the classifier's gain; `medians` filled a forest's missing values.
    """

    kind: str
    n_trees: int
    model_input: ModelInput
    calibrator: Calibrator
    thresholds: Thresholds
    usual: Usual
    lineage: Lineage
    created_at: datetime
    metrics: Mapping[str, Any] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    medians: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        width = len(self.model_input.names)
        lengths = {len(q) for q in (self.usual.low, self.usual.middle, self.usual.high, self.medians) if q is not None}
        if lengths != {width}:
            raise ValueError(f"usual values or medians are not those of {width} inputs")
        if not self.thresholds.review <= self.thresholds.block:
            raise ValueError(f"REVIEW at {self.thresholds.review} lies above BLOCK at {self.thresholds.block}")

    def to_json(self) -> bytes:
        """`bundle.json`; what is not a number becomes null."""
        stored = {
            "format": BUNDLE_FORMAT,
            "kind": self.kind,
            "n_trees": self.n_trees,
            "created_at": self.created_at.isoformat(),
            "feature_schema": self.model_input.schema_hash,
            "inputs": self.model_input.as_dict(),
            "thresholds": self.thresholds.as_dict(),
            "calibrator": self.calibrator.as_dict(),
            "lineage": asdict(self.lineage),
            "metrics": self.metrics,
            "importance": self.importance,
            "usual": asdict(self.usual),
            "medians": self.medians,
        }
        return json.dumps(_plain(stored), indent=1, allow_nan=False).encode()

    @classmethod
    def from_json(cls, content: bytes) -> BundleFacts:
        """The reverse of `to_json`; ValueError, KeyError or TypeError (or BundleError, of the calibrator) where it is not one."""
        stored = json.loads(content)
        if stored["format"] != BUNDLE_FORMAT:
            raise ValueError(f"its format is {stored['format']}, and this code reads {BUNDLE_FORMAT}")
        return cls(
            kind=str(stored["kind"]),
            n_trees=int(stored["n_trees"]),
            model_input=ModelInput.from_dict(stored["inputs"]),
            calibrator=calibrator_from_dict(stored["calibrator"]),
            thresholds=Thresholds(**stored["thresholds"]),
            usual=Usual(**{name: _numbers(values) for name, values in stored["usual"].items()}),
            lineage=Lineage.from_dict(stored["lineage"]),
            created_at=datetime.fromisoformat(stored["created_at"]),
            metrics=stored["metrics"],
            importance=stored["importance"],
            medians=None if stored["medians"] is None else _numbers(stored["medians"]),
        )


def _numbers(values: list[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in values)


def _plain(value: Any) -> Any:
    """JSON's own types only: numpy scalars and times unwrapped, NaN and infinities null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
