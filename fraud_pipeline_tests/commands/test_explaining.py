"""`fraud explain`: a served payment by the vector that was logged and the version that decided, exactly where asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fraud_pipeline import cli
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord, LedgerEntry
from fraud_pipeline.adapters.model_registry import CHAMPION, ModelRegistry
from fraud_pipeline.domain.bundle import FILES, TREES, ModelBundle, npz_arrays, npz_bytes
from fraud_pipeline.domain.bundle_files import write_directory
from fraud_pipeline.domain.decision import Decision, decide_on
from fraud_pipeline.domain.thresholds import thresholds_at
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline_tests.bundles import PLATT, payments, write_bundle

NOW = datetime(2026, 3, 2, 4, 5, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Decision]]:
    """A home with three versions, of which the second is champion, and payments that were decided by each."""
    home = tmp_path_factory.mktemp("served")
    registry = ModelRegistry.open(
        f"sqlite:///{home / 'mlflow.db'}", artifact_root=home / "mlartifacts", cache_dir=home / "bundles"
    )
    other = thresholds_at(PLATT, review=0.4, block=0.9)
    made = [write_bundle(home / "made"), write_bundle(home / "made", "random_forest", thresholds=other)]
    files = {name: (made[0] / name).read_bytes() for name in FILES}
    trees = {name: array for name, array in npz_arrays(files[TREES]).items() if name != "cover"}
    made.append(write_directory(home / "made", {**files, TREES: npz_bytes(trees)}))
    versions = [registry.register(path).version for path in made]
    assert versions == [1, 2, 3]
    registry.set_alias(CHAMPION, 2)
    given: dict[str, Decision] = {}
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        for version, path in zip(versions, made, strict=True):
            given[f"t{version}"] = _decided(f"t{version}", ModelBundle.load(path, version=str(version)))
        given["t-local"] = replace(given["t1"], transaction_id="t-local", model_version="ab12ab12ab12")
        ledger.append(
            [
                LedgerEntry(Transaction(name, NOW, "c1", "m1", 1250), NOW, decision=DecisionRecord.of(decision))
                for name, decision in given.items()
            ]
        )
    return home, given


def _decided(transaction_id: str, bundle: ModelBundle) -> Decision:
    vector = payments()[0][int(np.flatnonzero(payments()[1])[2])]
    return decide_on(vector, bundle, transaction_id=transaction_id, event_time=NOW, decided_at=NOW)


@pytest.fixture
def explain(
    world: tuple[Path, dict[str, Decision]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in that home: exit code, stdout, stderr."""
    monkeypatch.setenv("FRAUD_HOME", str(world[0]))

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(["explain", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize(("name", "unit"), [("t1", "log-odds"), ("t2", "probability")])
def test_a_served_payment_is_explained_exactly_under_the_version_that_decided(
    explain: Any, world: tuple[Path, dict[str, Decision]], name: str, unit: str
) -> None:
    code, out, _ = explain(name, "--exact", "--json")
    assert code == 0
    said, given = json.loads(out), world[1][name]
    assert said["served"] is True
    assert said["decision"] == json.loads(given.to_json())
    exact = said["exact"]
    assert (exact["model_version"], exact["score_unit"]) == (given.model_version, unit)
    assert (exact["raw_score"], exact["fraud_probability"]) == (given.raw_score, given.fraud_probability)
    total = exact["base_value"] + sum(c["contribution"] for c in exact["contributions"])
    assert total == pytest.approx(given.raw_score, abs=5e-6)


def test_without_exact_there_are_path_attributions_alone(explain: Any) -> None:
    code, out, _ = explain("t1", "--json")
    assert code == 0
    said = json.loads(out)
    assert said.keys() == {"decision", "served", "explanation"}


def test_people_read_values_and_meanings(explain: Any) -> None:
    code, out, _ = explain("t1", "--exact", "--limit", "3")
    assert code == 0
    assert "(base value) + the contributions" in out
    assert "The device differs from the customer's last known one" in out
    assert out.count("_") < 20, "three inputs, not all"


def test_the_waterfall_is_written_to_the_file_and_means_exact(explain: Any, tmp_path: Path) -> None:
    target = tmp_path / "why.png"
    code, out, _ = explain("t1", "--png", str(target), "--json")
    assert code == 0
    assert target.read_bytes().startswith(b"\x89PNG")
    said = json.loads(out)
    assert said["picture"] == str(target)
    assert len(said["exact"]["contributions"]) == 65


def test_a_file_that_cannot_be_written_is_named(explain: Any, tmp_path: Path) -> None:
    code, _, err = explain("t1", "--png", str(tmp_path / "nowhere" / "why.png"))
    assert code == 2
    assert "why.png cannot be written: No such file or directory" in err.replace("\n", " ")


def test_a_version_made_before_covers_were_kept_gives_path_attributions_only(explain: Any) -> None:
    assert explain("t3", "--json")[0] == 0
    code, _, err = explain("t3", "--exact")
    assert code == 2
    assert "Version 3 keeps no covers of its trees" in err


def test_a_decision_by_a_bundle_that_was_never_registered_is_refused_by_its_name(explain: Any) -> None:
    code, _, err = explain("t-local")
    assert code == 2
    assert "decided by bundle ab12ab12ab12, which is no registered version" in err
