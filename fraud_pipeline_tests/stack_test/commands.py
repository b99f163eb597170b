"""Programs that are run and waited for, with deadlines, and what they said when they fail."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

LINES_SHOWN: Final = 40
"""Of what a failed program said: a screen."""
POLL_S: Final = 2.0
"""Between two looks; the machine is busy with what is waited for."""
Found = TypeVar("Found")


class StackTestFailed(Exception):
    """A step did not come to what it promises; `logs_of` names the services whose logs explain it best."""

    def __init__(self, message: str, *, logs_of: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.logs_of = tuple(logs_of)


def run(
    command: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None, cwd: str | None = None,
    given: str | None = None,
) -> str:  # fmt: skip
    """Its standard output; StackTestFailed with the end of what it said where it fails or takes too long."""
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command, env=environment, cwd=cwd, input=given, stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True, text=True, check=False, timeout=timeout_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired as err:
        raise StackTestFailed(
            f"{shown}: not done after {timeout_s:.0f} s.\n{_end(_text(err.stdout), _text(err.stderr))}"
        ) from err
    except FileNotFoundError as err:
        raise StackTestFailed(f"{shown}: there is no {command[0]}.") from err
    if done.returncode:
        raise StackTestFailed(f"{shown}: exit code {done.returncode}.\n{_end(done.stdout, done.stderr)}")
    return done.stdout


def succeeds(command: Sequence[str], *, timeout_s: float, environment: Mapping[str, str] | None = None) -> bool:
    """Whether it ends with 0."""
    try:
        run(command, timeout_s=timeout_s, environment=environment)
    except StackTestFailed:
        return False
    return True


def until(look: Callable[[], Found], what: str, *, timeout_s: float, logs_of: Sequence[str] = ()) -> Found:
    """Look again until there is something; what is not there yet may say so by None, False or StackTestFailed."""
    deadline, last = time.monotonic() + timeout_s, ""
    while True:
        try:
            if found := look():
                return found
        except StackTestFailed as err:
            last = f"\nThe last look said: {err}"
        if time.monotonic() > deadline:
            raise StackTestFailed(f"waited {timeout_s:.0f} s in vain for {what}.{last}", logs_of=logs_of)
        time.sleep(POLL_S)


def _text(said: bytes | str | None) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""


def _end(*said: str) -> str:
    return "\n".join("\n".join(each.strip().splitlines()[-LINES_SHOWN:]) for each in said if each.strip())
