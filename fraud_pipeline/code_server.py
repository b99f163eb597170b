"""`python -m fraud_pipeline.code_server`: Dagster's code server of this location, once what its last one left is cleared up.

Runs are processes beside the code server. When its container is restarted they are gone, and nobody would say so: their runs
would count as started for ever, and hold the places of the run queue.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from fraud_pipeline import telemetry

LOCATION = "fraud_pipeline"
"""As workspace.yaml names it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Report lost runs, then become `dagster code-server start`, so that signals reach it."""
    parser = argparse.ArgumentParser(prog="fraud_pipeline.code_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=4000, help="port to listen on")
    options = parser.parse_args(arguments)
    telemetry.disable()
    from fraud_pipeline.defs.lost_runs import report_lost_runs

    for run_id in report_lost_runs(options.port):
        sys.stderr.write(f"run {run_id} was cut off when the code server ended: reported as failed\n")
    command = ["dagster", "code-server", "start", "-h", options.host, "-p", str(options.port)]
    target = ["-m", "fraud_pipeline.definitions", "--location-name", LOCATION]
    os.execv(sys.executable, [sys.executable, "-m", *command, *target])  # noqa: S606 our own interpreter, fixed arguments


if __name__ == "__main__":
    main()
