"""The models that decide: the ledger's present champion, loaded and warmed beside the old one and swapped between two payments.

A promotion or a rollback is noticed within POLL_S. A bundle that cannot be had, is damaged, needs features that this code
computes otherwise, or fails its self-test is refused, with the reason, and the old one goes on. Knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.bundle_files import read_directory
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.errors import BundleError, FraudError

POLL_S: Final = 0.5
"""A query of 0.1 ms; a promotion is to answer within 2 s, and loading a bundle takes up to 0.5 s."""
RETRY_S: Final = 30.0
"""How long a refused bundle is left alone: what is missing may have arrived by then."""
log = logging.getLogger(__name__)

Fetch = Callable[[int, str], Path]
"""(version, fingerprint) -> the bundle's local directory."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded bundle and what made it champion."""

    bundle: ModelBundle
    promotion: Promotion
    loaded_at: datetime


@dataclass
class RefusedModel:
    """A promoted version that could not be served."""

    version: int
    fingerprint: str
    reason: str
    at_monotonic: float = field(default_factory=time.monotonic)


class ModelSlot:
    """`champion` is read at each decision; `watch` keeps it the ledger's."""

    def __init__(
        self, ledger: Ledger, fetch: Fetch, *, now: Callable[[], datetime], challenger_share: float = 0.0
    ) -> None:
        self.challenger: ModelBundle | None = None
        self._challenger_share = challenger_share
        self.champion: ServedModel | None = None
        self.previous: ServedModel | None = None
        self.refused: RefusedModel | None = None
        self.swaps = 0
        self.refusals = 0
        self.ledger_error: str = ""
        self._ledger = ledger
        self.fetch = fetch
        self._now = now
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def bundle_for(self, customer_id: str) -> ModelBundle | None:
        """What decides for this customer; None before the first champion."""
        challenger = self.challenger
        if challenger is not None and in_challenger_share(customer_id, self._challenger_share):
            return challenger
        champion = self.champion
        return None if champion is None else champion.bundle

    def refresh(self) -> bool:
        """Look once; True where another model decides from now on."""
        try:
            promotion = self._ledger.current_promotion()
        except FraudError as err:
            if not self.ledger_error:
                log.warning("the ledger cannot be asked for promotions: %s", err.message)
            self.ledger_error = err.message
            return False
        self.ledger_error = ""
        if promotion is None or self._is_served(promotion) or self._was_refused(promotion):
            return False
        try:
            self._swap(self._prepared(promotion))
        except (FraudError, OSError) as err:
            self._refuse(promotion, str(err))
            return False
        return True

    def watch(self) -> None:
        """Start looking every POLL_S, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="model-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                self.refresh()
            except Exception:
                log.exception("looking for promotions failed")

    def _is_served(self, promotion: Promotion) -> bool:
        champion = self.champion
        return champion is not None and champion.promotion.promotion_id == promotion.promotion_id

    def _was_refused(self, promotion: Promotion) -> bool:
        refused = self.refused
        same = refused is not None and (refused.version, refused.fingerprint) == (
            promotion.version,
            promotion.fingerprint,
        )
        return same and refused is not None and time.monotonic() - refused.at_monotonic < RETRY_S

    def _prepared(self, promotion: Promotion) -> ServedModel:
        """The bundle loaded, verified and tried out; the previous one is at hand, so a rollback loads nothing."""
        for served in (self.champion, self.previous):
            if served is not None and _is_of(served.bundle, promotion):
                return ServedModel(served.bundle, promotion, self._now())
        path = self.fetch(promotion.version, promotion.fingerprint)
        bundle = ModelBundle.load(path, version=str(promotion.version))
        if bundle.fingerprint != promotion.fingerprint:
            raise BundleError(
                f"Bundle {path} is not what was promoted as version {promotion.version}.",
                remedy="Fetch the version again from the registry, or roll back: `fraud models rollback`.",
            )
        return ServedModel(bundle, promotion, self._now())

    def _swap(self, served: ServedModel) -> None:
        before = self.champion
        if before is not None and before.bundle is not served.bundle:
            self.previous = before
        self.champion = served  # one assignment: a decision reads it once
        self.refused = None
        self.swaps += 1
        log.info("version %s decides from now on", served.bundle.version)

    def _refuse(self, promotion: Promotion, reason: str) -> None:
        first = self.refused is None or self.refused.version != promotion.version
        self.refused = RefusedModel(promotion.version, promotion.fingerprint, reason)
        self.refusals += 1
        if first:
            log.error("version %s is refused, the old one goes on: %s", promotion.version, reason)


def _is_of(bundle: ModelBundle, promotion: Promotion) -> bool:
    return (bundle.fingerprint, bundle.version) == (promotion.fingerprint, str(promotion.version))


def in_challenger_share(customer_id: str, share: float) -> bool:
    """Whether the challenger decides for this customer: by a hash, so always and everywhere alike."""
    if share <= 0.0:
        return False
    digest = hashlib.blake2b(customer_id.encode(), digest_size=8, person=b"fraud.challenge").digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def local_bundle(bundles: Path, version: int, fingerprint: str) -> Path | None:
    """The bundle's directory of this home, where it was made or fetched to; None where it is not here."""
    for name in (f"{version}-{fingerprint[:16]}", fingerprint[:16]):
        try:
            if read_directory(bundles / name)[1] == fingerprint:
                return bundles / name
        except BundleError:
            continue
    return None


def fetcher(bundles: Path, tracking_uri: str, artifacts: Path) -> Fetch:
    """From this home where it is here, else from MLflow (which is only then loaded)."""

    def fetch(version: int, fingerprint: str) -> Path:
        found = local_bundle(bundles, version, fingerprint)
        if found is not None:
            return found
        from fraud_pipeline.adapters.model_registry import ModelRegistry

        return ModelRegistry.open(tracking_uri, artifact_root=artifacts, cache_dir=bundles).fetch(version)

    return fetch
