"""The promoted bundle and the champion before it, asked about the same recorded vectors; kept loaded between two looks.

Knows nothing of verdicts or of who is champion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.input_translation import InputTranslation
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.domain.promotion_watch import WatchPromise
from fraud_pipeline.domain.watch_tally import SCORE_BINS
from fraud_pipeline.errors import BundleError, FraudError

Fetch = Callable[[int, str], Path]
"""(version, fingerprint) -> the bundle's local directory."""


@dataclass(frozen=True, eq=False)
class WatchedModels:
    """`other` is None where there is no champion before, or it cannot be asked: `why_alone` says why, `gone` that its bundle is lost."""

    promoted: ModelBundle
    other: ModelBundle | None
    translation: InputTranslation | None
    why_alone: str = ""
    gone: bool = False

    def other_raw(self, vectors: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """The other model's raw scores of vectors that were recorded for the promoted one."""
        if self.other is None or self.translation is None:
            return None
        return self.other.score(self.translation.apply(vectors)).raw.astype(np.float64)

    def promise(self, promotion: Promotion, *, budget: float) -> WatchPromise:
        """What the bundle said of itself; of a forced one only what the budget says, for no gate vouched for it."""
        reference = self.promoted.reference().raw
        share = self.promoted.thresholds.alert_share if promotion.kind == "promotion" else None
        return WatchPromise(
            budget=budget,
            alert_share=share,
            score_edges=score_edges(reference),
            reference_rows=len(reference),
            compared_with=None if self.other is None else int(self.other.version),
            other_edges=() if self.other is None else score_edges(self.other.reference().raw),
        )


def open_models(fetch: Fetch, promotion: Promotion, before: Promotion | None) -> WatchedModels:
    """Load both. BundleError where the promoted one cannot be had; DependencyError where MLflow, which must say, is away."""
    promoted = _load(fetch, promotion)
    if before is None:
        return WatchedModels(promoted, None, None, "there is no champion before it")
    try:
        other = _load(fetch, before)
    except BundleError as err:
        return WatchedModels(
            promoted, None, None, f"the bundle of version {before.version} is gone: {err.message}", gone=True
        )
    translation = InputTranslation.between(promoted.facts.model_input, other.facts.model_input)
    if translation is None:
        return WatchedModels(promoted, None, None, f"version {before.version} reads inputs that are not recorded now")
    return WatchedModels(promoted, other, translation)


def score_edges(raw: NDArray[np.floating]) -> tuple[float, ...]:
    """The inner edges of SCORE_BINS bins that hold equal shares of these scores."""
    return tuple(float(edge) for edge in np.quantile(raw, np.linspace(0, 1, SCORE_BINS + 1)[1:-1])) if len(raw) else ()


def binned(raw: NDArray[np.floating], edges: tuple[float, ...]) -> tuple[int, ...]:
    """How many of the scores lie in each bin."""
    if not edges:
        return (0,) * SCORE_BINS
    counts = np.bincount(np.searchsorted(np.array(edges), raw, side="left"), minlength=SCORE_BINS)
    return tuple(int(count) for count in counts)


def _load(fetch: Fetch, promotion: Promotion) -> ModelBundle:
    path = fetch(promotion.version, promotion.fingerprint)
    bundle = _loaded(path, str(promotion.version), _stamp(path))
    if bundle.fingerprint != promotion.fingerprint:
        raise BundleError(
            f"Bundle {path} is not what was promoted as version {promotion.version}.",
            remedy="Fetch the version again from the registry, or roll back: `fraud models rollback`.",
        )
    return bundle


def _stamp(path: Path) -> int:
    """When the directory's manifest was written: a bundle put there anew is loaded anew."""
    try:
        return (path / "manifest.json").stat().st_mtime_ns
    except OSError as err:
        raise BundleError(f"Bundle {path} is gone.", remedy="Fetch the version again from the registry.") from err


@lru_cache(maxsize=4)
def _loaded(path: Path, version: str, stamp: int) -> ModelBundle:  # noqa: ARG001 the stamp is a part of the cache's key
    try:
        return ModelBundle.load(path, version=version)
    except FraudError as err:
        raise BundleError(err.message, remedy=err.remedy) from err
