"""A port of their own for a process's Prometheus metrics, where it serves no HTTP otherwise."""

from __future__ import annotations

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from fraud_pipeline.errors import SettingsError


class MetricsPort:
    """Serves a registry over HTTP until it is closed. SettingsError where the port is taken."""

    def __init__(self, registry: CollectorRegistry, *, port: int, host: str) -> None:
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as err:
            raise SettingsError(
                f"The metrics cannot listen on {host}:{port}: {err.strerror}.",
                remedy="Give each process a port of its own (--metrics-port, or its FRAUD_..._METRICS_PORT), or 0 for none.",
            ) from err

    @property
    def port(self) -> int:
        return self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=1.0)
