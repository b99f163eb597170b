"""`python -m streaming.sink`: the command `fraud sink`, as a process of its own name; see its `--help`.

It becomes that command, so that signals reach it and its exit code is the process's.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Become `fraud sink` with the same arguments."""
    os.execv(sys.executable, [sys.executable, "-m", "fraud_pipeline.cli", "sink", *sys.argv[1:]])  # noqa: S606 our own interpreter


if __name__ == "__main__":
    main()
