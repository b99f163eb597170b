"""Loopback ports for servers that are started again on the same one."""

from __future__ import annotations

import random
import socket
from typing import Final

from fraud_pipeline.errors import DependencyError

HOST: Final = "127.0.0.1"
FREE_PORTS: Final = range(20_000, 32_000)
"""Below the ports that systems give to outgoing connections (32768 on Linux, 49152 on macOS): a client that tries again and
again to reach a server that is down would at some time be given that very port, and connect to itself."""
TRIES: Final = 50
"""Ports looked at before giving up; one in a hundred is taken on a busy machine."""
CONNECT_S: Final = 1.0
"""Longest wait for loopback to accept: it does so at once or not at all."""


def free_port() -> int:
    """A port that nobody listens on now."""
    for port in random.SystemRandom().sample(FREE_PORTS, TRIES):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise DependencyError(
        f"No free port on {HOST} among {TRIES} between {FREE_PORTS.start} and {FREE_PORTS.stop}.", remedy="Name a port."
    )


def accepts(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((HOST, port), CONNECT_S):
            return True
    except OSError:
        return False
