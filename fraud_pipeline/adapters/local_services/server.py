"""One server process in a folder of its own: started and waited for, held, killed, ended by its process id.

It outlives the Python process that started it, unless told otherwise, and another one takes it over by its folder: the
state file there names the process and its port. What kind of server it is, its subclass knows.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from fraud_pipeline.adapters.local_services.ports import HOST, accepts, free_port
from fraud_pipeline.adapters.local_services.process_file import ProcessFile
from fraud_pipeline.errors import Busy, DependencyError

INSTALL: Final = "Install the servers: pip install 'fraud-pipeline[services]'."
LOOK_S: Final = 0.02
"""Between two looks at a server that starts or stops: short beside the 0.1 s that the quickest of them takes."""
LETS_GO_S: Final = 1.0
"""A killed process is gone before the last of its threads is, and with that its port: milliseconds, a second under load."""
SAID_LINES: Final = 15
"""Lines of a log that an error shows: an exception with its causes fits."""
LOG_LINES: Final = 1_000
"""Lines of a log in which something is looked for: more than any start writes."""


def complaint_in(output: str) -> str:
    """The end of what a program said, without the frames of a Java stack, which would push out what it says."""
    told = [line for line in output.splitlines() if not re.match(r"\s+(at|\.\.\.) ", line)]
    return "\n".join(told[-SAID_LINES:])


class LocalServer(ABC):
    """A server that listens on a loopback port; the same folder is the same server, with its data and its port.

    `port` 0 keeps the port that the folder knows, or takes a free one. With `ends_with_parent` the system ends the server
    with the process that started it, however that dies (on Linux): for tests.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    package: ClassVar[str]
    """The module of the wheel that brings it."""
    start_s: ClassVar[float]
    """Longest start; after it the server is ended and the error shows its log."""
    stop_s: ClassVar[float]
    """Longest clean stop; after it the server is killed."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, folder: Path, port: int = 0, *, ends_with_parent: bool = False) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "server.log"
        self._port = port
        self._ends_with_parent = ends_with_parent
        self._file = ProcessFile(self.folder)
        self._said_before = 0

    @property
    def port(self) -> int:
        """The port it listens on, or did last; 0 where it has never been started."""
        return self._port or self._file.port

    @property
    def pid(self) -> int | None:
        """Its process, while that runs."""
        process = self._file.process()
        return None if process is None else int(process.pid)

    @property
    def is_running(self) -> bool:
        return self.pid is not None

    @property
    def answers(self) -> bool:
        """Whether something accepts connections on its port and its process runs: a held server's kernel still accepts."""
        return self.is_running and accepts(self.port)

    @property
    @abstractmethod
    def address(self) -> str:
        """As the setting of its client has it."""

    @property
    @abstractmethod
    def exports(self) -> dict[str, str]:
        """The settings that make the project use it."""

    def start(self) -> None:
        """Start it and wait until it is ready; nothing happens where it runs already.

        Raises:
            Busy: it runs on another port than the one asked for.
            DependencyError: its package is missing, its port is taken, or it did not get ready in time; with its log's end.
        """
        for package in (self.package, "psutil"):
            if importlib.util.find_spec(package) is None:
                raise DependencyError(f"{self.title} cannot be started: {package} is not installed.", remedy=INSTALL)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if self.is_running:
                self._refuse_another_port()
                return
            self._choose_port()
            self._prepare()
            child = self._spawn()
            try:
                self._wait_until_ready(child)
            except BaseException:
                self.kill()
                raise
            finally:
                if child.poll() is None:
                    child.returncode = 0  # it may outlive us: Popen would warn that nobody waited for it

    def stop(self) -> None:
        """Stop it cleanly, or by force where that takes too long; nothing happens where it does not run."""
        process = self._file.process()
        if process is None:
            return
        self.resume()  # a held process hears no signal
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, self.stop_signal)
        if not self._ended(process, self.stop_s):
            self.kill()
        self._file.forget_process(self.port)

    def kill(self) -> None:
        """End it and what it started with SIGKILL, as a machine that fails does."""
        self._signal_all(signal.SIGKILL)
        self._file.forget_process(self.port)

    def pause(self) -> None:
        """Hold it and what it started (SIGSTOP): connections stand, nobody answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal_all(signal.SIGCONT)

    def said(self, lines: int = SAID_LINES) -> str:
        """The end of its log, of the latest start of this object's or of all."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(self._said_before)
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self) -> None:
        """Make configuration and data ready for a start on `port`."""

    @abstractmethod
    def _command(self) -> list[str]:
        """What to run."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether it serves its clients."""

    def _spawn_options(self) -> dict[str, Any]:
        """More arguments of Popen."""
        return {}

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = self._command()
        if self._ends_with_parent and shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with self.log.open("ab") as output:
            self._said_before = output.tell()
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C at the terminal is not meant for it
                **self._spawn_options(),
            )
        self._file.remember(child.pid, self.port)
        return child

    def _wait_until_ready(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.start_s
        while not self._is_ready():
            why = ""
            if child.poll() is not None:
                why = f"it ended with exit code {child.returncode}"
            elif time.monotonic() > deadline:
                why = f"waited {self.start_s:g} s"
            if why:
                raise DependencyError(
                    f"{self.title} was not ready on {HOST}:{self.port}: {why}.\n{complaint_in(self.said(lines=LOG_LINES))}",
                    remedy=f"Its whole log: {self.log}",
                )
            time.sleep(LOOK_S)

    def _signal_all(self, number: signal.Signals) -> None:
        """To the server first, or it would start new children; then to those."""
        import psutil

        process = self._file.process()
        if process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            if number == signal.SIGKILL:
                process.suspend()
            children = process.children(recursive=True)
            for one in (process, *children):
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.send_signal(number)
            if number == signal.SIGKILL:
                for one in (process, *children):
                    self._ended(one, self.stop_s)

    def _ended(self, process: Any, limit_s: float) -> bool:
        import psutil

        try:
            process.wait(limit_s)
        except psutil.NoSuchProcess:
            return True
        except psutil.TimeoutExpired:
            return False
        return True

    def _choose_port(self) -> None:
        self._port = self.port or free_port()
        deadline = time.monotonic() + LETS_GO_S
        while accepts(self._port):
            if time.monotonic() > deadline:
                raise DependencyError(
                    f"{self.title} cannot listen on {HOST}:{self._port}: something else does.",
                    remedy="Name another port, or end that.",
                )
            time.sleep(LOOK_S)

    def _refuse_another_port(self) -> None:
        runs_on = self._file.port
        if self._port not in {0, runs_on}:
            raise Busy(
                f"{self.title} in {self.folder} runs on port {runs_on}, not on {self._port}.",
                remedy="Stop it first to move it: its clients know it by its port.",
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / "server.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
