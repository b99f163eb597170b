"""The bento: built from the work tree, it serves from any folder, and holds nothing that trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fraud_pipeline_tests.service_process import ROOT, bentoml_command, start_service
from fraud_pipeline_tests.serving.home import empty_home
from fraud_pipeline_tests.test_boundaries import TRAINING

TAG = "fraud_scoring_service:test"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BENTOML_HOME with the bento."""
    folder = tmp_path_factory.mktemp("bentoml")
    subprocess.run(
        [bentoml_command(), "build", "--version", "test", "--output", "tag"],
        check=True, cwd=ROOT, capture_output=True, timeout=120, env={**os.environ, **environment(folder)},
    )  # fmt: skip
    return folder


def environment(store: Path) -> dict[str, str]:
    return {"BENTOML_HOME": str(store), "BENTOML_DO_NOT_TRACK": "True"}


def source(store: Path) -> Path:
    return store / "bentos" / "fraud_scoring_service" / "test" / "src"


def test_the_bento_holds_the_service_its_pins_and_nothing_else(store: Path) -> None:
    held = source(store)
    assert sorted(path.name for path in held.iterdir()) == [
        "LICENSE", "bentofile.yaml", "fraud_pipeline", "pyproject.toml", "requirements", "serving"
    ]  # fmt: skip
    assert not [path for path in held.rglob("*") if path.name in {"__pycache__", "defs", "definitions.py"}]
    assert (held / "fraud_pipeline" / "adapters" / "migrations" / "env.py").exists()
    pins = {line.split("==")[0] for line in (held / "requirements" / "serving.txt").read_text().splitlines()}
    names = {"sklearn": "scikit-learn", "imblearn": "imbalanced-learn", "great_expectations": "great-expectations"}
    waterfall = {"matplotlib"}
    assert pins & {names.get(package, package) for package in TRAINING} == waterfall
    assert {"bentoml", "numba", "onnxruntime", "psycopg", "sqlalchemy", "starlette"} <= pins


def test_what_the_bento_imports_is_its_own_and_loads_nothing_that_trains(store: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, '.'); import serving.service, fraud_pipeline; "
        f"print(serving.__file__, fraud_pipeline.__file__, *sorted(set({TRAINING!r}) & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=source(store), capture_output=True, text=True, timeout=120
    )
    assert answer.stdout.split() == [
        str(source(store) / name / "__init__.py") for name in ("serving", "fraud_pipeline")
    ]


@pytest.mark.slow
def test_the_bento_decides_a_payment_from_another_folder(store: Path, tmp_path: Path) -> None:
    home, elsewhere = empty_home(tmp_path / "home").home, tmp_path / "elsewhere"
    elsewhere.mkdir()
    payment = {
        "transaction_id": "order-1", "event_time": datetime.now(UTC).isoformat(), "customer_id": "c1", "merchant_id": "m1",
        "amount": "50.25",
    }  # fmt: skip
    service = start_service(
        tmp_path / "service.log",
        service=TAG,
        folder=elsewhere,
        deadline_s=240,  # it compiles its kernels: nobody has served from this folder before
        environment={**environment(store), "FRAUD_HOME": str(home)},
    )
    try:
        request = urllib.request.Request(
            f"{service.url}/score", json.dumps(payment).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            decision = json.load(answer)
    finally:
        service.stop()
    assert (decision["transaction_id"], decision["model_version"]) == ("order-1", "1")
    assert decision["decision"] in {"APPROVE", "REVIEW", "BLOCK"}
    assert list(elsewhere.iterdir()) == []
