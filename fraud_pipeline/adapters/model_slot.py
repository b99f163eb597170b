"""The models that decide: the ledger's present champion, loaded and warmed beside the old one and swapped between two payments,
and its challenger, kept in the same way.

A promotion, a rollback or another challenger is noticed within POLL_S. A bundle that cannot be had, is damaged, needs features
that this code computes otherwise, or fails its self-test is refused, with the reason, and the old one goes on (after a start: the
champion before it); a challenger that was refused leaves everything to the champion. Knows nothing of HTTP.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.bundle_files import read_directory
from fraud_pipeline.domain.promotion import Challenger, Promotion, rolled_back_versions
from fraud_pipeline.errors import BundleError, DependencyError, FraudError

POLL_S: Final = 0.5
"""A query of 0.1 ms; a promotion is to answer within 2 s, and loading a bundle takes up to 0.5 s."""
RETRY_S: Final = 30.0
"""How long a refused bundle is left alone: what is missing may have arrived by then."""
log = logging.getLogger(__name__)

Role = Literal["champion", "challenger"]
Fetch = Callable[[int, str], Path]
"""(version, fingerprint) -> the bundle's local directory."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded bundle and what made it champion."""

    bundle: ModelBundle
    promotion: Promotion
    loaded_at: datetime


@dataclass(frozen=True, slots=True)
class ServedChallenger:
    """A loaded bundle and what made it challenger."""

    bundle: ModelBundle
    appointment: Challenger
    loaded_at: datetime


@dataclass
class RefusedModel:
    """A promoted or appointed version that could not be served."""

    version: int
    fingerprint: str
    reason: str
    at_monotonic: float = field(default_factory=time.monotonic)


class ModelSlot:
    """`champion` and `challenger` are read at each decision; `watch` keeps them the ledger's."""

    def __init__(
        self, ledger: Ledger, fetch: Fetch, *, now: Callable[[], datetime], challenger_share: float = 0.0
    ) -> None:
        self.challenger: ServedChallenger | None = None
        self.challenger_share = challenger_share
        self.champion: ServedModel | None = None
        self.previous: ServedModel | None = None
        self.refused: RefusedModel | None = None
        self.refused_challenger: RefusedModel | None = None
        self.swaps = 0
        self.refusals: dict[Role, int] = {"champion": 0, "challenger": 0}
        self.ledger_error: str = ""
        self._ledger = ledger
        self.fetch = fetch
        self._now = now
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def bundle_for(self, customer_id: str) -> ModelBundle | None:
        """What decides for this customer; None before the first champion."""
        challenger = self.challenger
        if challenger is not None and in_challenger_share(customer_id, self.challenger_share):
            return challenger.bundle
        champion = self.champion
        return None if champion is None else champion.bundle

    def bundles_for(self, customer_ids: Sequence[str]) -> list[ModelBundle | None]:
        """`bundle_for` of each, at one moment."""
        challenger, champion, share = self.challenger, self.champion, self.challenger_share
        usual = None if champion is None else champion.bundle
        if challenger is None or share <= 0.0:
            return [usual] * len(customer_ids)
        return [challenger.bundle if in_challenger_share(each, share) else usual for each in customer_ids]

    def counterpart(self, version: str) -> ModelBundle | None:
        """Who did not decide a payment that this version decided: the challenger, or else the champion."""
        champion, challenger = self.champion, self.challenger
        if champion is None or challenger is None:
            return None
        return next((each.bundle for each in (challenger, champion) if each.bundle.version != version), None)

    def refresh(self) -> bool:
        """Look once; True where another champion decides from now on."""
        swapped = self._refresh_champion()
        self._refresh_challenger()
        return swapped

    def _refresh_champion(self) -> bool:
        try:
            promotion = self._ledger.current_promotion()
        except FraudError as err:
            if not self.ledger_error:
                log.warning("the ledger cannot be asked for promotions: %s", err.message)
            self.ledger_error = err.message
            return False
        self.ledger_error = ""
        if promotion is None or self._is_served(promotion) or _was_refused(self.refused, promotion.fingerprint):
            return False
        try:
            bundle = self._prepared(promotion.version, promotion.fingerprint)
        except Exception as err:  # noqa: BLE001 whatever it is, the old one goes on, and the reason is told
            self.refused = self._refusal(
                "champion", self.refused, promotion.version, promotion.fingerprint, _reason(err)
            )
            return self.champion is None and self._fall_back(promotion)
        self._swap(ServedModel(bundle, promotion, self._now()))
        return True

    def _fall_back(self, promoted: Promotion) -> bool:
        """A process that starts while the champion's bundle is gone decides with the newest earlier champion that can be had.

        Those that were rolled back are left out. The refusal stays told, and the promoted one is tried again every RETRY_S.
        """
        try:
            history = self._ledger.promotions()
        except FraudError:
            return False  # asked again at the next look
        taken_back = rolled_back_versions(history)
        for earlier in reversed(history):
            if earlier.fingerprint == promoted.fingerprint or earlier.version in taken_back:
                continue
            try:
                bundle = self._prepared(earlier.version, earlier.fingerprint)
            except Exception as err:  # noqa: BLE001 whatever it is, an older one may do
                log.warning("version %d cannot stand in either: %s", earlier.version, _reason(err))
                continue
            self.champion = ServedModel(bundle, earlier, self._now())
            self.swaps += 1
            log.error("version %d stands in for champion %d, which is refused", earlier.version, promoted.version)
            return True
        return False

    def _refresh_challenger(self) -> None:
        try:
            appointment = self._ledger.current_challenger()
        except FraudError:
            return  # the champion's watch says it
        if appointment is None or appointment.version is None or appointment.fingerprint is None:
            if self.challenger is not None:
                log.info("version %s is dismissed as challenger", self.challenger.bundle.version)
            self.challenger = self.refused_challenger = None
            return
        challenger, version, fingerprint = self.challenger, appointment.version, appointment.fingerprint
        if challenger is not None and challenger.appointment.challenger_id == appointment.challenger_id:
            return
        if _was_refused(self.refused_challenger, fingerprint):
            return
        try:
            bundle = self._prepared(version, fingerprint)
        except Exception as err:  # noqa: BLE001 whatever it is, the old one goes on, and the reason is told
            self.challenger = None  # who was replaced does not challenge any more
            self.refused_challenger = self._refusal(
                "challenger", self.refused_challenger, version, fingerprint, _reason(err)
            )
            return
        self.challenger, self.refused_challenger = ServedChallenger(bundle, appointment, self._now()), None
        log.info("version %d challenges", version)

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

    def _prepared(self, version: int, fingerprint: str) -> ModelBundle:
        """The bundle loaded, verified and tried out; those at hand are taken, so a rollback loads nothing."""
        for served in (self.champion, self.previous, self.challenger):
            if served is not None and (served.bundle.fingerprint, served.bundle.version) == (fingerprint, str(version)):
                return served.bundle
        path = self.fetch(version, fingerprint)
        bundle = ModelBundle.load(path, version=str(version))
        if bundle.fingerprint != fingerprint:
            raise BundleError(
                f"Bundle {path} is not what was registered as version {version}.",
                remedy="Fetch the version again from the registry, or roll back: `fraud models rollback`.",
            )
        return bundle

    def _swap(self, served: ServedModel) -> None:
        before = self.champion
        if before is not None and before.bundle is not served.bundle:
            self.previous = before
        self.champion = served  # one assignment: a decision reads it once
        self.refused = None
        self.swaps += 1
        log.info("version %s decides from now on", served.bundle.version)

    def _refusal(
        self, role: Role, before: RefusedModel | None, version: int, fingerprint: str, reason: str
    ) -> RefusedModel:
        self.refusals[role] += 1
        if before is None or before.version != version:
            log.error("version %s is refused as %s, the old one goes on: %s", version, role, reason)
        return RefusedModel(version, fingerprint, reason)


def _reason(err: Exception) -> str:
    return str(err) if isinstance(err, FraudError) else f"{type(err).__name__}: {err}"


def _was_refused(refused: RefusedModel | None, fingerprint: str) -> bool:
    """Just now: what is refused is tried again after RETRY_S."""
    same = refused is not None and refused.fingerprint == fingerprint
    return same and refused is not None and time.monotonic() - refused.at_monotonic < RETRY_S


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
    """From this home where it is here, else from MLflow: a server's REST interface, or its database (only then MLflow is loaded)."""

    def fetch(version: int, fingerprint: str) -> Path:
        found = local_bundle(bundles, version, fingerprint)
        if found is not None:
            return found
        if tracking_uri.startswith(("http://", "https://")):
            from fraud_pipeline.adapters.bundle_download import download_bundle

            return download_bundle(tracking_uri, version, fingerprint, into=bundles)
        try:
            from fraud_pipeline.adapters.model_registry import ModelRegistry
        except ModuleNotFoundError as err:
            raise DependencyError(
                f"Version {version} is not in {bundles}, and {err.name} is not installed to fetch it with.",
                remedy=f"Where MLflow is installed, `fraud models show {version} --card` fetches it.",
            ) from err

        return ModelRegistry.open(tracking_uri, artifact_root=artifacts, cache_dir=bundles).fetch(version)

    return fetch
