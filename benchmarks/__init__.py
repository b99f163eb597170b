"""Measurements, each a module: `python -m benchmarks.NAME --json`. Numbers to compare are in docs/benchmarks.md."""

import os

# Before any library that reads it is loaded, as the command line does: threads that spin while they wait slow each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
