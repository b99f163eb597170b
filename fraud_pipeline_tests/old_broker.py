"""A Kafka broker of long ago, which knows metadata and nothing of making topics."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fraud_pipeline.adapters.local_services.ports import HOST

METADATA: Final = 3
API_VERSIONS: Final = 18
UNSUPPORTED_VERSION: Final = 35


@contextmanager
def old_broker() -> Iterator[str]:
    """Its address."""
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=_accept, args=(server, port), daemon=True).start()
        yield f"{HOST}:{port}"


def _accept(server: socket.socket, port: int) -> None:
    with contextlib.suppress(OSError):  # closed at the end of the test
        while True:
            connection, _ = server.accept()
            threading.Thread(target=_serve, args=(connection, port), daemon=True).start()


def _serve(connection: socket.socket, port: int) -> None:
    with connection, connection.makefile("rb") as requests, contextlib.suppress(OSError):
        while header := requests.read(4):
            request = requests.read(struct.unpack(">i", header)[0])
            api, version, correlation = struct.unpack(">hhi", request[:8])
            body = _versions(version) if api == API_VERSIONS else _metadata(port, version)
            connection.sendall(struct.pack(">ii", 4 + len(body), correlation) + body)


def _versions(asked: int) -> bytes:
    """What it knows: two requests in their first forms."""
    error = UNSUPPORTED_VERSION if asked > 0 else 0
    known = [(METADATA, 0, 1), (API_VERSIONS, 0, 0)]
    return struct.pack(">hi", error, len(known)) + b"".join(struct.pack(">hhh", *one) for one in known)


def _metadata(port: int, version: int) -> bytes:
    """Itself, which is the controller too, and no topic."""
    host = HOST.encode()
    broker = struct.pack(">iih", 1, 1, len(host)) + host + struct.pack(">i", port)
    no_rack_and_controller = struct.pack(">hi", -1, 1) if version else b""
    return broker + no_rack_and_controller + struct.pack(">i", 0)
