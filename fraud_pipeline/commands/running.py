"""What commands that run until they are stopped have in common: signals that end them in time, and a port for their metrics."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

STOP_S: Final = 4.5
"""Longest stop, under the 5 s that a supervisor is told. Who does not answer until then takes back or fences what is open."""


@contextmanager
def stopped_by_signals(stop: Callable[[], object], *, who: str) -> Iterator[None]:
    """SIGTERM and SIGINT call `stop`; what still runs after STOP_S ends without having its say."""

    def asked(*_: object) -> None:
        stop()
        late = threading.Timer(STOP_S, _end_at_once, [who])
        late.daemon = True
        late.start()

    before = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def metrics_served(registry: Callable[[], CollectorRegistry], *, port: int, host: str) -> Iterator[None]:
    """The registry's metrics on a port; 0: on none."""
    if not port:
        yield
        return
    from fraud_pipeline.adapters.metrics_port import MetricsPort

    served: Any = MetricsPort(registry(), port=port, host=host)
    try:
        yield
    finally:
        served.close()


def _end_at_once(who: str) -> None:
    sys.stderr.write(f"fraud: the {who} ends without waiting any longer; nothing is half done\n")
    os._exit(0)
