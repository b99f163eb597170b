"""The monitoring assets on a home whose newest day was served live."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.promotions import current_champion
from fraud_pipeline.defs.monitoring import champion_knows_this_world, drift_report, newest_drift, page_link
from fraud_pipeline.defs.parity import batch_equals_online, bundles_of, parity_report
from fraud_pipeline.defs.performance import performance_report
from fraud_pipeline.defs.resources import resources_for
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES
from fraud_pipeline.errors import BundleError, NotFound
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.decided_homes import PAYMENTS, bundle
from fraud_pipeline_tests.served_days import LIVE_DAY, served_home

REPORTS = [drift_report, performance_report, parity_report, champion_knows_this_world, batch_equals_online]
PARITY = [parity_report, batch_equals_online]
AS_OF = LIVE_DAY + timedelta(days=2)
INPUTS = len(bundle("1").input_names)


class Registry:
    """The two versions of a decided home, one of which may have lost its files."""

    def __init__(self, lost: int | None = None) -> None:
        self.lost = lost

    def fetch(self, version: int) -> Path:
        if version == self.lost:
            raise BundleError(f"The files of version {version} at there are gone.", remedy="Restore them.")
        return bundle(str(version)).path


def materialize(
    settings: Settings,
    instance: dg.DagsterInstance,
    *,
    registry: Any,
    assets: Sequence[Any] = REPORTS,
    raise_on_error: bool = True,
) -> Any:
    resources = {**resources_for(settings), "registry": registry}
    needed = {"settings", "builder", "ledger", "registry"}
    return dg.materialize(
        assets, instance=instance, resources={name: resources[name] for name in needed}, raise_on_error=raise_on_error,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )  # fmt: skip


def page(instance: dg.DagsterInstance, asset: str) -> dict[str, Any]:
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return served_home(tmp_path_factory.mktemp("home") / "h")


@pytest.fixture(scope="module")
def instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as held:
        materialize(settings, held, registry=Registry())
        yield held


def check(result: Any, name: str) -> Any:
    (found,) = [each for each in result.get_asset_check_evaluations() if each.check_name == name]
    return found


def test_the_drift_page_says_what_was_sampled_and_links_to_where_a_browser_opens_it(
    settings: Settings, instance: dg.DagsterInstance
):
    found = page(instance, "drift_report")
    assert found["as of"] == str(AS_OF)
    assert f"| this week | {found['dagster/row_count']:,} |" in found["payments compared"]
    row = found["payments compared"].splitlines()[2].split(" | ")
    assert row[3:7] == [str(PAYMENTS), "80", "40", "0"]
    assert found["page"] == f"http://127.0.0.1:{settings.rest_port}/drift/report?report={AS_OF}-version-1"
    assert Path(found["Evidently page"]).read_text().count("<html") >= 1
    assert found["history"].startswith("![history](data:image/png;base64,")
    newest = newest_drift(instance)
    assert newest is not None
    assert (newest["champion"], newest["as_of"], newest["judged"]) == (1, AS_OF, True)
    assert page_link(settings.model_copy(update={"service_url": "https://fraud.example/"}), "x") == (
        "https://fraud.example/drift/report?report=x"
    )


def test_the_performance_page_has_what_was_found_beside_what_is_expected(
    settings: Settings, instance: dg.DagsterInstance
):
    found = page(instance, "performance_report")
    head = found["metrics"].splitlines()[0]
    assert (
        head == "| metric | promised in training | measured | expected of the same days | expected of the newest days |"
    )
    (kept,) = (settings.reports_dir / "performance").glob("*.json")
    told = json.loads(kept.read_text())
    assert kept.name == f"{AS_OF}-version-1.json"
    expected = told["expected_of_newest"]
    assert 0 <= expected["precision"]["low"] <= expected["precision"]["value"] <= expected["precision"]["high"] <= 1
    assert found["days without mature labels"] == f"{AS_OF - timedelta(days=7)} to {LIVE_DAY + timedelta(days=1)}"
    assert "(" in found["metrics"]  # intervals
    assert found["history"].startswith("![history](data:image/png;base64,")


def test_the_parity_page_has_both_parts_and_the_check_covers_them(settings: Settings, instance: dg.DagsterInstance):
    found = page(instance, "parity_report")
    assert (found["differing values"], found["served differing values"]) == (0, 0)
    assert found["served values"] == PAYMENTS * INPUTS
    assert found["served days"] == f"{LIVE_DAY} to {LIVE_DAY + timedelta(days=1)}"
    again = materialize(settings, instance, registry=Registry(), assets=PARITY)
    assert (
        page(instance, "parity_report")["served days"]
        == f"{LIVE_DAY + timedelta(days=1)} to {LIVE_DAY + timedelta(days=1)}"
    )
    assert check(again, "batch_equals_online").passed


def test_a_logged_vector_that_batch_does_not_make_fails_the_check(settings: Settings, tmp_path: Path):
    home = tmp_path / "h"
    shutil.copytree(settings.home, home)
    spoilt = Settings(home=home)
    with closing(sqlite3.connect(home / "ledger.db")) as connection, connection:
        (vector,) = connection.execute("SELECT features FROM decisions WHERE transaction_id = 'live-7'").fetchone()
        values = np.frombuffer(vector, "<f4").copy()
        values[FEATURE_NAMES.index("amount")] += 1
        connection.execute("UPDATE decisions SET features = ? WHERE transaction_id = 'live-7'", (values.tobytes(),))
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(spoilt, instance, registry=Registry(), assets=PARITY)
        found = page(instance, "parity_report")
    failed = check(result, "batch_equals_online")
    assert not failed.passed
    assert "1 of those that were logged when served" in failed.description
    assert "| live-7 |" in found["examples"]
    assert "| amount | 1 |" in found["differing features"]


def test_a_champion_whose_files_are_gone_is_a_named_error_and_parity_goes_on(settings: Settings):
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialize(settings, instance, registry=Registry(lost=1), raise_on_error=False)
        failed = {e.step_key: e.step_failure_data.error for e in result.all_events if e.is_step_failure}
        assert set(failed) == {"drift_report", "performance_report"}
        for error in failed.values():
            cause = error.cause or error
            assert "The files of version 1 at there are gone" in cause.message
        found = page(instance, "parity_report")
    assert found["served values"] == (PAYMENTS - 80) * INPUTS  # by version 2, which is there
    assert found["served report"]["unreadable"] == {"1": 80}


def test_versions_that_are_none_are_named():
    with pytest.raises(NotFound, match="no version 'abc'"):
        bundles_of(Registry())("abc")


def test_the_home_has_the_champion_that_the_reports_are_about(settings: Settings):
    with Ledger.open(settings.ledger_url) as ledger:
        promotion = current_champion(ledger)
    assert promotion is not None
    assert promotion.version == 1
