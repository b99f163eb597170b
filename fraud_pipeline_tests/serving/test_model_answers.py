"""What /model, /health and /metrics say of the challenger."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.model_slot import ModelSlot, fetcher
from fraud_pipeline.live_runtime import LiveRuntime
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.challenged_homes import APPOINTED_AT, appoint_version, make_version, promote_version
from serving.metrics import exposition
from serving.model_answers import challenger_health, challenger_model, refused_model

NOW = datetime(2026, 3, 3, tzinfo=UTC)


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[LiveRuntime]:
    """A runtime that was not started, with a slot whose champion is version 1."""
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        promote_version(ledger, 1, make_version(tmp_path, review=0.2))
        bundles = tmp_path / "bundles"
        runtime = LiveRuntime(Settings(home=tmp_path))
        runtime.ledger = ledger
        runtime.models = ModelSlot(
            ledger, fetcher(bundles, "sqlite:///x", bundles), now=lambda: NOW, challenger_share=0.25
        )
        runtime.models.refresh()
        yield runtime
        runtime.ledger = None


def appointed(runtime: LiveRuntime, version: int | None, fingerprint: str | None) -> ModelSlot:
    assert runtime.ledger is not None
    assert runtime.models is not None
    appoint_version(runtime.ledger, version, fingerprint)
    runtime.models.refresh()
    return runtime.models


def metric(runtime: LiveRuntime, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)$", exposition(runtime), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def test_without_a_challenger_there_is_nothing_to_say(runtime: LiveRuntime):
    assert runtime.models is not None
    assert challenger_model(runtime.models) is None
    assert challenger_health(runtime) == {
        "status": "none", "version": None, "refused": None, "shadow_decisions": 0, "shadow_dropped": 0, "remedy": ""
    }  # fmt: skip
    assert metric(runtime, "fraud_challenger_version") == 0


def test_before_the_ledger_was_reached_there_is_nothing_to_say_either(tmp_path: Path):
    new = LiveRuntime(Settings(home=tmp_path))
    assert challenger_health(new)["status"] == "none"
    assert metric(new, 'fraud_model_refusals_total{role="challenger"}') == 0


def test_a_challenger_is_shown_with_its_appointment_and_its_share(runtime: LiveRuntime, tmp_path: Path):
    fingerprint = make_version(tmp_path, review=0.3)
    models = appointed(runtime, 2, fingerprint)
    assert challenger_model(models) == {
        "model_version": "2", "fingerprint": fingerprint, "appointed_at": APPOINTED_AT, "appointed_by": "test",
        "reason": "a trial", "loaded_at": NOW, "share": 0.25,
    }  # fmt: skip
    assert (challenger_health(runtime)["status"], challenger_health(runtime)["version"]) == ("ok", "2")
    assert metric(runtime, "fraud_challenger_version") == 2
    appointed(runtime, None, None)
    assert challenger_model(models) is None


def test_a_refused_challenger_is_shown_with_the_reason_and_counted_apart(runtime: LiveRuntime):
    models = appointed(runtime, 2, "a" * 64)  # whose bundle is nowhere
    refused = refused_model(models.refused_challenger)
    assert refused is not None
    assert refused["model_version"] == "2"
    health = challenger_health(runtime)
    assert (health["status"], health["refused"]) == ("refused", refused)
    assert "fraud models challenge --none" in health["remedy"]
    assert metric(runtime, 'fraud_model_refusals_total{role="challenger"}') == 1
    assert metric(runtime, 'fraud_model_refusals_total{role="champion"}') == 0
    assert refused_model(models.refused) is None
