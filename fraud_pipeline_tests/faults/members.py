"""Processes under test and who looks after them: started, held, killed, and started again when they end unasked."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

PATIENCE_S: Final = 120.0
"""For anything that must come about; the machine may be busy with others' work."""
LOOK_S: Final = 0.05
RESTART_AFTER_S: Final = 0.5
"""As a supervisor does, so that a process that cannot start does not take the machine."""
STOP_S: Final = 20.0
"""For an end that was asked for; a scorer ends itself after 4.5 s, however busy it is."""


class NotInTime(AssertionError):
    """Something that must come about did not."""


def until(condition: Callable[[], object], what: str, *, patience_s: float = PATIENCE_S) -> None:
    """Wait for it. Raises NotInTime."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise NotInTime(f"{what}: not within {patience_s:g} s")
        time.sleep(LOOK_S)


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended unasked, and the end of what it said."""

    name: str
    code: int
    said: str


class Member:
    """One process that should run, under a name that it keeps from start to start. `ready` says when it works."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, folder: Path, ready: str
    ) -> None:
        self.name = name
        self.wanted = False
        self.starts = 0
        self.log = folder / f"{name}.log"
        self._command = ["setpriv", "--pdeathsig", "KILL", *command] if shutil.which("setpriv") else [*command]
        self._environment = dict(environment)
        self._ready = ready
        self._is_ready = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def is_ready(self) -> bool:
        return self.pid is not None and self._is_ready.is_set()

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it; nothing happens where it runs."""
        if self.pid is not None:
            self.wanted = True
            return
        self._is_ready.clear()
        self.starts += 1
        # Through a pipe, so that no limit on the process's files is one on its log.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", env=self._environment, cwd=_ROOT,
        )  # fmt: skip
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        self.wanted = True  # only now: who looks after it must not see it wanted and not there

    def _read(self, output: IO[str]) -> None:
        with output, self.log.open("a") as log:
            log.write(f"--- start {self.starts}\n")
            for line in output:
                log.write(line)
                log.flush()
                if self._ready in line:
                    self._is_ready.set()

    def signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """SIGKILL; it is over when this returns."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> float:
        """SIGTERM, and SIGKILL where it does not end; how long it took, s."""
        self.wanted = False
        started = time.monotonic()
        self.signal(signal.SIGTERM)
        try:
            self.wait()
        except NotInTime:
            self.kill()
        return time.monotonic() - started

    def wait(self) -> None:
        until(lambda: self.pid is None, f"the end of {self.name}", patience_s=STOP_S)
        if self._reader is not None:
            self._reader.join(STOP_S)

    def said(self, lines: int = 12) -> str:
        """The end of what it said."""
        return "\n".join(self.log.read_text().splitlines()[-lines:]) if self.log.exists() else ""


class Supervisor:
    """Starts members again that end unasked, and remembers how they ended."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.ended: list[Ended] = []
        self._expected: set[str] = set()
        self._stopping = threading.Event()
        self._lock = threading.RLock()
        self._again: dict[str, float] = {}
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    def add(self, member: Member) -> Member:
        with self._lock:
            self.members.append(member)
            member.start()
        return member

    def kill(self, member: Member) -> None:
        """Kill it and start it again."""
        with self._lock:
            member.kill()
            member.start()

    def abort(self) -> None:
        """Have each say in its log where its threads stand (PYTHONFAULTHANDLER), and end."""
        self._stopping.set()
        self._thread.join()
        for member in self.members:
            member.wanted = False
            member.signal(signal.SIGCONT)
            member.signal(signal.SIGABRT)
        for member in self.members:
            with contextlib.suppress(NotInTime):
                member.wait()

    def close(self) -> None:
        """End all of them at once."""
        self._stopping.set()
        self._thread.join()
        for member in self.members:
            member.wanted = False
            member.signal(signal.SIGCONT)
            member.kill()

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_S):
            with self._lock:
                for member in self.members:
                    self._look_after(member)

    def _look_after(self, member: Member) -> None:
        if not member.wanted or member.pid is not None:
            return
        due = self._again.get(member.name)
        if due is None:
            self.ended.append(Ended(member.name, int(member.exit_code or 0), member.said()))
            self._again[member.name] = time.monotonic() + RESTART_AFTER_S
        elif time.monotonic() >= due:
            del self._again[member.name]
            member.start()


_ROOT: Final = Path(__file__).resolve().parents[2]
