"""One process of the stack in a folder of its own: started, looked at, ended by its process id. It outlives who started it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from fraud_pipeline.adapters.local_services.process_file import ProcessFile
from fraud_pipeline.adapters.local_services.server import complaint_in
from fraud_pipeline.adapters.stack.topology import LocalProcess
from fraud_pipeline.errors import DependencyError

LETS_GO_S: Final = 5.0
"""How long the children of a process that has ended get to end by themselves, as they are told to."""
LOG_TAIL_BYTES: Final = 65_536
"""More than any complaint of a start; a log may be large."""


class StackProcess:
    """A service's process; `process` says what to run."""

    def __init__(self, folder: Path, process: LocalProcess, *, cwd: Path, ends_with_parent: bool = False) -> None:
        self.process = process
        self.name = process.service.name
        self.log = folder / "process.log"
        self._folder = folder
        self._cwd = cwd
        self._ends_with_parent = ends_with_parent
        self._file = ProcessFile(folder)
        self._said_before = 0
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process, while that runs."""
        process = self._file.process()
        return None if process is None else int(process.pid)

    @property
    def ended_with(self) -> int | None:
        """The exit code of the process that this object started, once it has ended."""
        return None if self._child is None else self._child.poll()

    def launch(self) -> None:
        """Start it; does not wait for it to be healthy."""
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [self._program(), *self.process.command[1:]]
        if self._ends_with_parent and shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with self.log.open("ab") as output:
            self._said_before = output.tell()
            self._child = subprocess.Popen(  # noqa: S603 the compose file's own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._cwd,
                env=self.environment,
                start_new_session=True,  # Ctrl-C at the terminal is not meant for it
            )
        self._file.remember(self._child.pid, self.process.port)

    def is_healthy(self) -> bool:
        """What its health check says; who has none is healthy while it runs."""
        if self.pid is None:
            return False
        if not self.process.health:
            return True
        try:
            looked = subprocess.run(  # noqa: S603 the compose file's own check
                self.process.health,
                cwd=self._cwd,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
                timeout=self.process.service.health_timeout_s,
            )
        except subprocess.TimeoutExpired:
            return False
        return looked.returncode == 0

    def stop(self) -> bool:
        """End it and its children, by force where that takes longer than compose would wait; False where it did not run."""
        import psutil

        process = self._file.process()
        if process is None:
            return False
        children = process.children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs([process], timeout=self.process.service.stop_s)
        for one in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                children = one.children(recursive=True)
                one.kill()
        _, left = psutil.wait_procs(children, timeout=LETS_GO_S)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs([process, *left], timeout=LETS_GO_S)
        if self._child is not None:
            self._child.poll()
        self._file.forget_process(self.process.port)
        return True

    def forget(self) -> None:
        """Of a process that has ended by itself."""
        self._file.forget_process(self.process.port)

    def let_go(self) -> None:
        """It may outlive us: Popen would warn that nobody waited for it."""
        if self._child is not None and self._child.poll() is None:
            self._child.returncode = 0
        self._child = None

    def said(self, lines: int, *, since_start: bool = False) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._said_before if since_start else 0, size - LOG_TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    def failure(self, why: str) -> DependencyError:
        """The error of a start that came to nothing, with what the process said."""
        said = complaint_in(self.said(1_000, since_start=True))
        return DependencyError(f"{self.name} {why}.\n{said}".rstrip(), remedy=f"Its whole log: {self.log}")

    @property
    def environment(self) -> dict[str, str]:
        """What it sees: ours, the file's over it, and the programs of this very installation first."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        programs = str(Path(sys.executable).parent)
        path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
        return {**ours, **self.process.environment, "PATH": path, "PYTHONUNBUFFERED": "1"}

    def _program(self) -> str:
        program = self.process.command[0]
        found = shutil.which(program, path=self.environment["PATH"])
        if found is None:
            raise DependencyError(
                f"{self.name} needs the program {program!r}, which is not installed.",
                remedy="Install what it comes with: pip install 'fraud-pipeline[pipeline,serving,streaming,postgres,services]'.",
            )
        return found

    def run_to_end(self, limit_s: float) -> None:
        """A one-shot: launched, waited for. DependencyError where it fails."""
        self.launch()
        assert self._child is not None
        try:
            code = self._child.wait(limit_s)
        except subprocess.TimeoutExpired as err:
            self.stop()
            raise self.failure(f"did not end within {limit_s:g} s") from err
        except BaseException:
            self.stop()
            raise
        self.forget()
        if code != 0:
            raise self.failure(f"ended with exit code {code}")
