"""The live state of writer `local`: the history's checkpoint, then the ledger's log after it, replayed without deciding.

A state is a function of a history and a place in the log, and a checkpoint is named by both: any process that makes one
makes the same, nobody needs to be asked, and the newest whole one is the best. Knows nothing of HTTP or of models.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.feature_store import FeatureStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_log import LogPage
from fraud_pipeline.adapters.ledger_records import LOCAL_WRITER
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_columns import EventColumns, LabelColumns
from fraud_pipeline.domain.feature_spec import SCHEMA_HASH
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.errors import StateError

CHECKPOINTS_KEPT: Final = 2
"""The newest, and the one before it should the newest be damaged."""
NO_HISTORY: Final = "0" * 16
"""The name of the empty history: a home that serves without ever having imported anything."""

_NAME: Final = re.compile(r"\d{16}\.state", re.ASCII)
log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with places replayed and places to replay."""


@dataclass
class LiveState:
    """A state and the place in the log that it stands at. `history` names what lay before the log.

    `kept_at` is the place of the checkpoint that it was recovered from: what a restart would replay begins there.
    """

    state: FeatureState
    sequence: int
    history: str
    kept_at: int = 0


class LiveStateStore:
    """Recovers and keeps live states of one home."""

    def __init__(self, home: Path, checkpoints: CheckpointStore, ledger: Ledger, *, time_zone: str = "UTC") -> None:
        self._source = SourceStore(home)
        self._features = FeatureStore(DatasetStore(home), checkpoints, time_zone=time_zone)
        self._checkpoints = checkpoints
        self._ledger = ledger
        self._time_zone = time_zone

    def recover(self, progress: Progress | None = None) -> LiveState:
        """The state at the end of the log. StateError for a gap in it."""
        live = self.newest() or LiveState(self._base_state(), 0, self.history())
        self.replay(live, progress)
        return live

    def base(self) -> LiveState:
        """The state before the first place of the log: where the history ends."""
        return LiveState(self._base_state(), 0, self.history())

    def replay(self, live: LiveState, progress: Progress | None = None) -> int:
        """Take in what the log holds after the state's place; returns how many places."""
        first = live.sequence
        until = self._ledger.last_sequence(LOCAL_WRITER)
        for page in self._ledger.log_pages(LOCAL_WRITER, after=first, until=until):
            advance(live, page, self._time_zone)
            if progress is not None:
                progress(live.sequence - first, until - first)
        return live.sequence - first

    def keep(self, live: LiveState) -> str:
        """Write the state as a checkpoint and forget older ones; its name. The state must be a committed one."""
        folder = self._folder(live.history)
        name = f"{live.sequence:016d}.state"
        self._checkpoints.write(f"{folder}/{name}", live.state.snapshot())
        for old in self._names(folder)[:-CHECKPOINTS_KEPT]:
            self._checkpoints.remove(f"{folder}/{old}")
        return f"{folder}/{name}"

    def history(self) -> str:
        """The name of the landed history that the log continues: a hash over its days, or NO_HISTORY."""
        day = self._last_day()
        return NO_HISTORY if day is None else self._features.histories()[day][:16]

    def _base_state(self) -> FeatureState:
        day = self._last_day()
        return FeatureState.empty(self._time_zone) if day is None else self._features.checkpoint(day)[1]

    def _last_day(self) -> date | None:
        """The last usable day of the landed world; live days are the log's matter."""
        if not self._source.exists():
            return None
        end = self._source.manifest().end
        days = [day for day in self._features.usable_days() if day < end]
        return days[-1] if days else None

    def at(self, sequence: int) -> LiveState:
        """The state right after that place of the log, as it was then: the newest checkpoint up to it, and the log."""
        live = self.newest(upto=sequence) or self.base()
        for page in self._ledger.log_pages(LOCAL_WRITER, after=live.sequence, until=sequence):
            advance(live, page, self._time_zone)
        return live

    def newest(self, *, upto: int | None = None) -> LiveState | None:
        """The newest sound checkpoint of this history, up to a place where one is given; those beyond the end are removed."""
        history = self.history()
        names = self._names(self._folder(history))
        end = self._ledger.last_sequence(LOCAL_WRITER)  # after the names: nobody keeps a state that is not committed
        for name in reversed(names):
            sequence = int(name.removesuffix(".state"))
            if sequence > end:
                # Of a ledger that is no more, or has lost its last commits: once the log reaches this place again, the
                # checkpoint would pass for its own.
                self._checkpoints.remove(f"{self._folder(history)}/{name}")
                continue
            if upto is not None and sequence > upto:
                continue
            try:
                content = self._checkpoints.read(f"{self._folder(history)}/{name}")
                return LiveState(FeatureState.restore(content), sequence, history, kept_at=sequence)
            except StateError as err:
                log.warning("checkpoint %s is passed over: %s", name, err.message)  # the one before it will do
        return None

    def _names(self, folder: str) -> list[str]:
        return [name for name in self._checkpoints.names(folder) if _NAME.fullmatch(name)]

    def _folder(self, history: str) -> str:
        return f"live/{LOCAL_WRITER}/{SCHEMA_HASH}-{self._time_zone.replace('/', '.')}/{history}"


def advance(live: LiveState, page: LogPage, time_zone: str) -> npt.NDArray[np.float32]:
    """Take a page in, in its order; returns the features [events, F] that each payment of it read."""
    events = EventColumns.from_table(page.events, time_zone)
    labels = replace(LabelColumns.from_table(page.labels), position=page.positions)
    values = compute_features(events, labels, state=live.state).values
    live.sequence = page.last
    return values
