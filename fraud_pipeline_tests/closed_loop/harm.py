"""What goes wrong in the middle of the loop, once: a process killed, a server away, a run cut off, a bundle gone.

Each is done while the stream goes on, at the place in the story that its name is told for. The promises stay the same.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import psutil

from fraud_pipeline_tests.closed_loop.sabotage import open_registry
from fraud_pipeline_tests.faults.members import until

if TYPE_CHECKING:
    from fraud_pipeline_tests.closed_loop.loop import ClosedLoop

Place = Literal["verdict", "training"]
AWAY_S: Final = 20.0
"""Longer than a sensor's interval and any first try."""
LOOK_S: Final = 0.1
CUT_OFF_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Fault:
    """`at`: after the verdict, before its training was asked for; or while that training runs."""

    at: Place
    do: Callable[[ClosedLoop], str]


def _away(role: Literal["postgres", "kafka", "valkey"], cost: str) -> Callable[[ClosedLoop], str]:
    """A server that is killed, and back after a while."""

    def do(loop: ClosedLoop) -> str:
        server = getattr(loop.stack, role)
        server.kill()
        time.sleep(AWAY_S)
        server.start()
        return f"kill -9 of {server.title}, {AWAY_S:g} s {cost}"

    return do


_WITHOUT_POSTGRES: Final = _away("postgres", "without ledger and Dagster's storage")


def _two_daemons(loop: ClosedLoop) -> str:
    loop.stack.start_second_daemon()
    return "a second daemon on the same storage"


def _run_killed(loop: ClosedLoop) -> str:
    """Between registering the candidate and promoting it."""
    registry = open_registry(loop.stack)
    known = {version.version for version in registry.versions()}
    until(lambda: {v.version for v in registry.versions()} - known, "a candidate", patience_s=CUT_OFF_S)
    killed = [worker.pid for worker in loop.stack.run_workers()]
    for pid in killed:
        psutil.Process(pid).kill()
    return f"kill -9 of the run's process {killed} when its candidate was registered"


def _bundle_deleted(loop: ClosedLoop) -> str:
    """The champion's, wherever it is kept; those who serve it have it in memory."""
    settings, champion = loop.stack.settings, loop.champion_version
    source = open_registry(loop.stack).version(champion)
    for place in settings.bundles_dir.glob(f"{champion}-*"):
        shutil.rmtree(place)
    for place in settings.bundles_dir.glob(f"{source.fingerprint[:16]}*"):
        shutil.rmtree(place)
    return f"every local copy of version {champion}'s bundle deleted"


FAULTS: Final[dict[str, Fault]] = {
    "postgres_away": Fault("verdict", _WITHOUT_POSTGRES),
    "postgres_away_in_training": Fault("training", _WITHOUT_POSTGRES),
    "kafka_away": Fault("verdict", _away("kafka", "without it")),
    "valkey_away": Fault("training", _away("valkey", "without it, and it comes back empty")),
    "two_daemons": Fault("verdict", _two_daemons),
    "run_killed": Fault("training", _run_killed),
    "bundle_deleted": Fault("verdict", _bundle_deleted),
}
