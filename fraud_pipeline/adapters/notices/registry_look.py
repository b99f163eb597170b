"""A look at the registry of models, on a thread of its own: MLflow may take seconds, a sensor's tick may not.

Finds candidates that their gates stopped, and whether the champion's files can be had: they are fetched anew, past the cache
that makes a deleted bundle go unnoticed until the next machine starts.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Final

from fraud_pipeline.adapters.model_registry import ModelRegistry
from fraud_pipeline.errors import BundleError, DependencyError, InputError, NotFound

LOOK_EVERY_S: Final = 60.0
"""A bundle is a few MB: fetching it once a minute costs nothing that anybody would notice."""

OpenRegistry = Callable[[Path], ModelRegistry | None]
"""The registry with its files fetched into this folder; None where there is none yet."""


@dataclass(frozen=True, slots=True)
class StoppedCandidate:
    """A version whose gates failed."""

    version: int
    reason: str
    failed_gates: tuple[str, ...]
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Findings:
    """What the last look found. `away`: why the registry could not be looked at, and then nothing else is known."""

    stopped: tuple[StoppedCandidate, ...] = ()
    champion: int | None = None
    champion_problem: str | None = None
    away: str | None = None


class RegistryLook:
    """Looks at most once in `every_s`; one look at a time. Threads may share one."""

    def __init__(self, open_registry: OpenRegistry, *, every_s: float = LOOK_EVERY_S) -> None:
        self._open, self._every_s = open_registry, every_s
        self._lock = threading.Lock()
        self._running: threading.Thread | None = None
        self._newest: Findings | None = None
        self._looked_at = -every_s

    def newest(self, champion: int | None, *, wait_s: float) -> Findings | None:
        """What is known by now; None where the first look is still under way. Starts one where it is time to."""
        with self._lock:
            if self._running is None and monotonic() - self._looked_at >= self._every_s:
                self._running = threading.Thread(target=self._look, args=(champion,), name="registry-look", daemon=True)
                self._running.start()
            running = self._running
        if running is not None:
            running.join(wait_s)
        return self._newest

    def _look(self, champion: int | None) -> None:
        try:
            self._newest = look_at(self._open, champion)
        finally:
            with self._lock:
                self._looked_at, self._running = monotonic(), None


def look_at(open_registry: OpenRegistry, champion: int | None) -> Findings:
    """One look. What stands in the way is a finding too."""
    with tempfile.TemporaryDirectory(prefix="fraud-look-") as folder:
        try:
            registry = open_registry(Path(folder))
            if registry is None:
                return Findings()
            stopped = tuple(
                StoppedCandidate(
                    version.version,
                    version.reason,
                    tuple(r.name for r in version.gates.failures) if version.gates else (),
                    version.created_at,
                )
                for version in registry.versions()
                if version.verdict == "failed"
            )
            return Findings(stopped, champion, None if champion is None else _problem(registry, champion))
        except (DependencyError, InputError) as err:
            return Findings(away=err.message)


def _problem(registry: ModelRegistry, champion: int) -> str | None:
    try:
        registry.fetch(champion)
    except (BundleError, NotFound) as err:
        return str(err)
    return None
