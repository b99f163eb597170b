"""The sensor that watches a promoted model: real bundles, a real ledger, and Dagster's own bookkeeping."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_schema import notices
from fraud_pipeline.defs.watch import ALIAS_TAG, repair_aliases, watch_promotion
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.adapters.watched_ledger import BUDGET, WatchedLedger

SETTINGS = Settings(alert_budget=BUDGET)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[WatchedLedger]:
    """A champion, and one before it; everything was decided an hour ago by the machine's clock."""
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        made = WatchedLedger(tmp_path, ledger)
        made.now = datetime.now(UTC) - timedelta(hours=1)
        made.promote(1, made.bundle())
        yield made


def tick(
    instance: dg.DagsterInstance, place: WatchedLedger, cursor: str | None = None, settings: Settings = SETTINGS
) -> Any:
    resources = {"ledger": place.ledger, "fetch_bundle": place.fetch, "settings": settings}
    with dg.build_sensor_context(instance=instance, resources=resources, cursor=cursor) as context:
        return watch_promotion(context)


def said(result: Any) -> str:
    return str(result.skip_message if isinstance(result, dg.SkipReason) else result.skip_reason.skip_message)


def told(place: WatchedLedger) -> list[tuple[str, str]]:
    with place.ledger.database.reading() as connection:
        return [(row.kind, row.episode) for row in connection.execute(sa.select(notices)).all()]


def broken_input(instance: dg.DagsterInstance) -> None:
    verdict = {"status": "broken_input", "reasons": ["country is missing in 60%"]}
    metadata: dict[str, Any] = {
        "status": "broken_input", "champion": 2, "as of": "2026-03-02", "verdict": dg.MetadataValue.json(verdict),
    }  # fmt: skip
    instance.report_runless_asset_event(dg.AssetMaterialization("drift_report", metadata=metadata))


def test_each_tick_says_how_it_stands_and_the_page_shows_what_is_new(
    instance: dg.DagsterInstance, place: WatchedLedger
):
    place.promote(2, place.bundle(review=0.19))
    place.answer(600, days=2)
    first = tick(instance, place)
    assert "Every limit is kept so far, in 600 decisions over 1.9 days" in said(first)
    (page,) = first.asset_events
    assert page.asset_key == dg.AssetKey("promotion_watch")
    assert page.metadata["verdict"].value == "watching"
    assert page.metadata["compared with"].value == "version 1"
    assert "alerts within the budget | kept" in page.metadata["limits"].value
    second = tick(instance, place, first.cursor)
    assert second.asset_events == [], "nothing is new"
    place.answer(600, days=6)
    third = tick(instance, place, first.cursor)
    assert third.asset_events[0].metadata["verdict"].value == "passed"
    assert told(place) == [("watch", "passed-2")]
    assert "is over: passed" in said(tick(instance, place, third.cursor))


def test_a_breach_rolls_back_in_the_tick_and_a_run_sets_the_alias(instance: dg.DagsterInstance, place: WatchedLedger):
    place.promote(2, place.bundle(review=0.00001), kind="forced", reason="by hand")
    place.answer(600, days=0.1)
    result = tick(instance, place)
    champion = place.ledger.current_promotion()
    assert champion is not None
    assert (champion.kind, champion.version, champion.who) == ("rollback", 1, "promotion watch")
    (request,) = result.run_requests
    assert request.tags[ALIAS_TAG] == "3"
    (page,) = result.asset_events
    assert (page.metadata["verdict"].value, page.metadata["what was done"].value) == (
        "breached",
        "rolled back to version 1",
    )
    assert "alerts within the budget | BROKEN" in page.metadata["limits"].value
    assert told(place) == [], "a rollback is told from its row"
    failed = dg.DagsterRun(job_name=repair_aliases.name, tags=request.tags, status=dg.DagsterRunStatus.FAILURE)
    instance.add_run(failed)
    assert "is not watched" in said(tick(instance, place)), "it has just been tried"
    instance.add_run(dg.DagsterRun(job_name=repair_aliases.name, tags=request.tags, status=dg.DagsterRunStatus.SUCCESS))
    assert "is not watched" in said(tick(instance, place))


def test_broken_input_holds_the_rollback_and_says_so(instance: dg.DagsterInstance, place: WatchedLedger):
    place.promote(2, place.bundle(review=0.00001))
    place.answer(600, days=0.1)
    broken_input(instance)
    assert "the input is broken" in said(tick(instance, place))
    assert place.ledger.current_promotion().version == 2  # type: ignore[union-attr]


def test_what_needs_a_person_is_told_once(instance: dg.DagsterInstance, place: WatchedLedger):
    place.answer(600, days=0.1)
    promotion = place.promote(2, "f" * 64)
    for _ in range(2):
        assert f"The bundle of champion {promotion.version} cannot be had" in said(tick(instance, place))
    assert told(place) == [("champion_missing", "champion-bundle-2")]


def test_a_first_champion_that_breaks_its_limits_stays_and_a_person_is_called(
    instance: dg.DagsterInstance, tmp_path: Path
):
    with Ledger.open(f"sqlite:///{tmp_path / 'other.db'}") as ledger:
        place = WatchedLedger(tmp_path, ledger)
        place.now = datetime.now(UTC) - timedelta(hours=1)
        place.promote(1, place.bundle(review=0.00001))
        place.answer(600, days=0.1)
        assert "stays champion: there is no champion before it" in said(tick(instance, place))
        assert told(place) == [("watch", "breach-1")]


def test_no_days_is_no_watch(instance: dg.DagsterInstance, place: WatchedLedger):
    assert "FRAUD_WATCH_DAYS is 0" in said(tick(instance, place, settings=Settings(watch_days=0)))
