"""`python -m streaming.scorer`: the command `fraud score-stream`, as a process of its own name; see its `--help`.

It becomes that command, so that signals reach it and its exit code is the process's.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Become `fraud score-stream` with the same arguments."""
    os.execv(sys.executable, [sys.executable, "-m", "fraud_pipeline.cli", "score-stream", *sys.argv[1:]])  # noqa: S606 our own interpreter


if __name__ == "__main__":
    main()
