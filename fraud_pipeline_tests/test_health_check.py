"""What compose asks of each process: a check that passes where it serves, and says why where it does not."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
import psycopg
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]

from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline.health_check import Unhealthy, check_daemon, check_grpc, check_http, main


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def answering(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"well")

        def log_message(self, *_: Any) -> None:
            """Nothing to say."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/livez"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def code_server(service: str) -> Iterator[str]:
    """The health service that Dagster's code server has, serving under a name."""
    servicer = health.HealthServicer()
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_a_page_that_answers_is_healthy_and_one_that_fails_is_not() -> None:
    with answering(200) as url:
        check_http(url)
    with answering(503) as url, pytest.raises(Unhealthy, match="answers 503"):
        check_http(url)
    with pytest.raises(Unhealthy, match="does not answer"):
        check_http(f"http://127.0.0.1:{closed_port()}/livez")
    with pytest.raises(Unhealthy, match="no http address"):
        check_http("file:///etc/passwd")


def test_a_code_server_must_serve_dagsters_own_service() -> None:
    with code_server("DagsterApi") as address:
        check_grpc(address)
    with code_server("another") as address, pytest.raises(Unhealthy, match="NOT_FOUND"):
        check_grpc(address)
    with pytest.raises(Unhealthy, match=r"UNAVAILABLE|DEADLINE"):
        check_grpc(f"127.0.0.1:{closed_port()}")


def test_a_daemon_is_as_healthy_as_its_newest_heartbeat(postgres: PostgresServer) -> None:
    """On Dagster's own table, as its PostgreSQL storage makes it."""
    from dagster._daemon.types import DaemonHeartbeat
    from dagster_postgres import DagsterPostgresStorage

    from fraud_pipeline.adapters.database_server import DatabaseServer

    DatabaseServer(postgres.address).create_missing("heartbeats")
    address = postgres.address.rsplit("/", 1)[0].replace("+psycopg:", "+psycopg2:") + "/heartbeats"
    with pytest.raises(Unhealthy, match="does not answer"):
        check_daemon(address)
    storage = DagsterPostgresStorage(address)
    with pytest.raises(Unhealthy, match="no daemon has written"):
        check_daemon(address)
    storage.run_storage.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "one", []))
    check_daemon(address)
    storage.run_storage.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 600, "SENSOR", "one", []))
    with pytest.raises(Unhealthy, match=r"SENSOR, is 6\d\d s old"):
        check_daemon(address)
    storage.run_storage.dispose()
    with psycopg.connect(address.replace("+psycopg2", "")) as connection:
        assert connection.execute("SELECT count(*) FROM daemon_heartbeats").fetchone() == (1,)


def test_exit_codes_are_what_docker_reads(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("FRAUD_DAGSTER_STORAGE_URL", raising=False)
    with answering(200) as url:
        assert main(["http", url]) == 0
    assert main(["http", f"http://127.0.0.1:{closed_port()}"]) == 1
    assert "does not answer" in capsys.readouterr().err
    for wrong in ([], ["http"], ["daemon"], ["smtp", "x"]):
        assert main(wrong) == 2
        assert "http URL" in capsys.readouterr().err


def test_it_starts_with_the_standard_library_alone() -> None:
    """Every container runs it every few seconds."""
    look = "import fraud_pipeline.health_check, sys; print({'grpc', 'psycopg', 'pydantic', 'numpy'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
