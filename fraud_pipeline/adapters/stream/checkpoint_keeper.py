"""Keeps checkpoints of committed state while the scorer goes on: a forked child writes what the parent had at that moment.

The kernel shares the memory until one of the two changes it, so the parent is held up for the fork alone. The child touches
nothing but the state and files, and ends.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Final

from fraud_pipeline.adapters.stream.stream_metrics import StreamMetrics
from fraud_pipeline.adapters.stream.writer_states import WriterStates
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.errors import FraudError

EVERY_S: Final = 60.0
"""A restart replays at most a minute of the log: at 15,000/s 9 s of replay, at 1,000/s under one."""
EVERY_RECORDS: Final = 500_000
"""Sooner where the log grows quickly: 5 s of replay."""
log = logging.getLogger(__name__)

Shared = Callable[[], tuple[MergedState, dict[int, int]]]


class CheckpointKeeper:
    """Told of every commit (`Aftermath`). `shared` gives the merged state and the places that it stands at."""

    def __init__(
        self,
        states: WriterStates,
        shared: Shared,
        metrics: StreamMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._states = states
        self._shared = shared
        self._metrics = metrics
        self._clock = clock
        self._child = 0
        self._kept_at = clock()
        self._kept: dict[int, int] = {}

    def adopted(self, partition: int, state: WriterState) -> None:
        self._kept[partition] = state.offset

    def dropped(self, partition: int) -> None:
        self._kept.pop(partition, None)

    def committed(self, states: Mapping[int, WriterState], changed: Mapping[int, set[str]]) -> None:  # noqa: ARG002
        self._reap(wait=False)
        grown = {each: state.offset - self._kept.get(each, 0) for each, state in states.items()}
        due = self._clock() - self._kept_at >= EVERY_S or sum(grown.values()) >= EVERY_RECORDS
        if self._child or not due or not any(grown.values()):
            return
        self._kept_at = self._clock()
        self._kept = {each: state.offset for each, state in states.items()}
        self._child = self._fork([states[each] for each in sorted(states) if grown[each]])

    def keep_now(self, states: Mapping[int, WriterState]) -> None:
        """At a clean stop, in this process."""
        self._reap(wait=True)
        changed = [state for each, state in sorted(states.items()) if state.offset != self._kept.get(each)]
        if changed:
            self._states.keep(changed, *self._shared())
            self._metrics.checkpoints += 1

    def close(self) -> None:
        self._reap(wait=True)

    def _fork(self, states: list[WriterState]) -> int:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", DeprecationWarning
            )  # other threads are not in the child, nor what they hold
            child = os.fork()
        if child:
            return child
        try:
            self._states.keep(states, *self._shared())
        except FraudError as err:
            os.write(2, f"no checkpoint: {err.message}\n".encode())
            os._exit(3)
        except BaseException as err:  # noqa: BLE001 the child of a fork must never return into its parent's code
            os.write(2, f"no checkpoint: {err!r}\n".encode())
            os._exit(4)
        os._exit(0)

    def _reap(self, *, wait: bool) -> None:
        if not self._child:
            return
        ended, status = os.waitpid(self._child, 0 if wait else os.WNOHANG)
        if ended:
            self._child = 0
            if os.waitstatus_to_exitcode(status) == 0:
                self._metrics.checkpoints += 1
            else:
                log.warning("no checkpoint was kept: its child ended with %d", os.waitstatus_to_exitcode(status))
