"""What a person with the best intentions might do: promote a model, past its gates, that alerts on every other payment."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from typing import Final

import numpy as np

from fraud_pipeline.adapters.model_registry import ModelRegistry
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.thresholds import Thresholds
from fraud_pipeline_tests.closed_loop.stack import Stack
from fraud_pipeline_tests.closed_loop.warm import ROOT

REASON: Final = "it looked better in a notebook"
REVIEWED: Final = 0.5
"""Of all payments, by the thresholds that are put in the bundle."""
COMMAND_S: Final = 120.0


def open_registry(stack: Stack) -> ModelRegistry:
    settings = stack.settings
    return ModelRegistry.open(
        settings.mlflow_tracking_uri, artifact_root=settings.artifacts_dir, cache_dir=settings.bundles_dir
    )


def register_damaged(stack: Stack, version: int) -> int:
    """The version's bundle with thresholds that review half of all payments, as a version of its own; its number."""
    registry = open_registry(stack)
    bundle = ModelBundle.load(registry.fetch(version))
    raw = float(np.quantile(bundle.reference().raw, 1 - REVIEWED))
    damaged = Thresholds(review=raw, block=raw, review_probability=0.0, block_probability=0.0)
    path = bundle.with_thresholds(damaged, stack.folder / "sabotage", created_at=datetime.now(UTC))
    return registry.register(path, tags={"derived_from": bundle.fingerprint}).version


def promote_by_force(stack: Stack, version: int) -> None:
    """`fraud models promote VERSION --force --reason ...`, as a person types it."""
    command, environment = stack.cli("models", "promote", str(version), "--force", "--reason", REASON)
    done = subprocess.run(
        command, env=dict(environment), cwd=ROOT, capture_output=True, text=True, check=False, timeout=COMMAND_S
    )
    if done.returncode:
        raise AssertionError(f"the forced promotion failed: {done.stdout}{done.stderr}")
