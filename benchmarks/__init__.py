"""Measurements, each a module: `python -m benchmarks.NAME --json`. Numbers to compare are in docs/benchmarks.md."""
