"""Ending a supervised service at once, as `kill -9` of the whole machine's share of it does."""

from __future__ import annotations

import contextlib

import psutil


def kill_with_children(pid: int) -> None:
    """End a process and all below it by their ids. Nothing happens where it has ended.

    BentoML's worker has a session of its own, so its supervisor's process group does not reach it; and the supervisor is
    held first, or it would start another worker.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        supervisor = psutil.Process(pid)
        supervisor.suspend()
        for process in (*supervisor.children(recursive=True), supervisor):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
