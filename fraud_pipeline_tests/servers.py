"""Real servers for tests: one of each kind per worker, started by the first test that asks, ended by its process id.

Tests share them: each keeps to a topic prefix, a key prefix or a database of its own. A test that stops, holds or kills a
server starts one for itself with `server_of_my_own`.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline.adapters.local_services.server import LocalServer
from fraud_pipeline.adapters.local_services.valkey_server import ValkeyServer

Server = TypeVar("Server", bound=LocalServer)


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder that a server may use; not pytest's own, which only we may enter: as root PostgreSQL is someone else."""
    folder = Path(tempfile.mkdtemp(prefix="fraud-server-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server_of_my_own(kind: type[Server], **options: Any) -> Iterator[Server]:
    """A started server that nobody else uses; what it holds is thrown away."""
    if importlib.util.find_spec(kind.package) is None:
        pytest.skip(f"{kind.package} is not installed (the `services` extra)")
    with server_folder() as folder:
        server = kind(folder, ends_with_parent=True, **options)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaServer]:
    """An Apache Kafka; `address` is its bootstrap server."""
    with server_of_my_own(KafkaServer) as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A Valkey; `address` is a redis:// URL."""
    with server_of_my_own(ValkeyServer) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL; `address` is the SQLAlchemy address of its database `postgres`."""
    with server_of_my_own(PostgresServer) as server:
        yield server
