"""The sensors that look and tell, on an ephemeral instance, a real ledger and receivers that really listen."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from prometheus_client import generate_latest
from pydantic import SecretStr

from fraud_pipeline.adapters.kafka.sink_metrics import SinkMetrics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.notices.notice_book import NoticeBook
from fraud_pipeline.adapters.notices.registry_look import Findings, StoppedCandidate
from fraud_pipeline.defs import notices
from fraud_pipeline.defs.notices import TOLD_WITHIN, deliver_notices, observe_platform, tell_failed_runs
from fraud_pipeline.domain.platform_rules import AWAY_FOR
from fraud_pipeline.domain.promotion import Promotion
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.notice_receivers import Answer, receiving

CHAMPION = 3


class Look:
    """A registry that somebody has looked at."""

    def __init__(self, found: Findings | None = None) -> None:
        self.found = found

    def newest(self, _champion: int | None, *, wait_s: float) -> Findings | None:
        assert wait_s < 1, "a tick is to take a second"
        return self.found


class Platform:
    """What the sensors see; `look` evaluates one tick after another, the cursor going from one to the next."""

    def __init__(self, instance: dg.DagsterInstance, ledger: Ledger, settings: Settings) -> None:
        self.instance, self.ledger, self.settings = instance, ledger, settings
        self.registry = Look()
        self.cursor: str | None = None

    def look(self) -> str:
        resources = {"ledger": self.ledger, "settings": self.settings, "registry_look": self.registry}
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor, resources=resources) as context:
            said: Any = observe_platform(context)
            self.cursor = context.cursor
        return str(said.skip_message)

    def let_pass(self, seconds: float) -> None:
        """As if the looks so far had been so much earlier."""
        held = json.loads(self.cursor or "{}")
        held["samples"] = {a: [[at - seconds, values] for at, values in kept] for a, kept in held["samples"].items()}
        held["pending"] = {key: since - seconds for key, since in held["pending"].items()}
        self.cursor = json.dumps(held)

    def deliver(self) -> str:
        resources = {"ledger": self.ledger, "settings": self.settings}
        with dg.build_sensor_context(instance=self.instance, resources=resources) as context:
            said: Any = deliver_notices(context)
        return str(said.skip_message)

    def told(self) -> list[tuple[str, str, bool]]:
        newest = NoticeBook(self.ledger.database).newest(limit=99)
        return [(n.notice.kind, n.notice.episode, n.notice.resolves) for n in reversed(newest)]

    def titles(self) -> list[str]:
        return [each.notice.title for each in reversed(NoticeBook(self.ledger.database).newest(limit=99))]

    def promote(self, version: int = CHAMPION, *, kind: Any = "promotion", at: datetime | None = None) -> None:
        before = self.ledger.current_promotion()
        number = before.promotion_id if before else 0
        previous = before.version if before else None
        self.ledger.append_promotion(
            Promotion(number + 1, number, kind, version, "f", previous, "test", "why", at or datetime.now(UTC))
        )

    def report(self, status: str, *, champion: int = CHAMPION, broken: tuple[str, ...] = ()) -> None:
        verdict = {"status": status, "reasons": ["it is so"], "broken_features": list(broken)}
        self.materialized(
            "drift_report", status=status, champion=champion, verdict=dg.MetadataValue.json(verdict), **{"as of": "2026-03-01"}
        )  # fmt: skip

    def materialized(self, asset: str, **metadata: Any) -> None:
        self.instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=metadata))


@pytest.fixture
def platform(instance: dg.DagsterInstance, ledger: Ledger) -> Platform:
    return Platform(instance, ledger, Settings(dagster_url="http://ui:3000"))


def test_a_quiet_platform_is_said_to_be_so(platform: Platform) -> None:
    said = platform.look()
    assert said.startswith(
        "Nothing new to tell. 0 of 0 watched addresses answer; the registry is still being looked at"
    )
    assert platform.told() == []


def test_drift_is_told_once_and_its_end(platform: Platform) -> None:
    platform.promote()
    platform.look()
    platform.report("drift")
    assert "Told: The world has drifted away from version 3" in platform.look()
    platform.look()
    assert platform.told()[1:] == [("drift", "world#1", False)]
    platform.report("stable")
    assert "Told: Over: The world has drifted away from version 3" in platform.look()
    platform.report("drift")
    platform.look()
    assert platform.told()[1:] == [("drift", "world#1", False), ("drift", "world#1", True), ("drift", "world#2", False)]
    newest = NoticeBook(platform.ledger.database).newest(limit=1)[0].notice
    assert newest.link == "http://ui:3000/assets/drift_report"
    assert newest.at.date() == date(2026, 3, 1), "the data's clock"


def test_a_report_of_another_champion_says_nothing_of_this_one(platform: Platform) -> None:
    platform.promote()
    platform.report("drift", champion=CHAMPION - 1)
    platform.look()
    assert [kind for kind, _, _ in platform.told()] == ["promotion"]


def test_a_broken_input_names_its_fields(platform: Platform) -> None:
    platform.promote()
    platform.look()
    platform.report("broken_input", broken=("amount", "hour"))
    platform.look()
    assert platform.told()[1:] == [("broken_input", "amount,hour#1", False)]
    platform.report("stable")
    platform.look()
    assert platform.told()[2:] == [("broken_input", "amount,hour#1", True)]


def test_promotions_are_told_once_each_whoever_lost_the_cursor(platform: Platform) -> None:
    platform.promote(1, at=datetime.now(UTC) - TOLD_WITHIN - timedelta(hours=1))
    platform.promote(2)
    platform.promote(3, kind="forced")
    platform.promote(2, kind="rollback")
    platform.look()
    platform.cursor = None
    platform.look()
    assert platform.told() == [
        ("promotion", "promotion-2", False), ("promotion", "promotion-3", False), ("rollback", "promotion-4", False),
    ]  # fmt: skip
    assert platform.titles()[-1] == "Version 3 was rolled back: version 2 is champion again"


def test_differing_values_are_told(platform: Platform) -> None:
    platform.materialized(
        "parity_report", **{"differing values": 0, "served differing values": 2, "compared values": 100}
    )
    platform.look()
    platform.materialized("parity_report", **{"differing values": 0, "compared values": 100})
    platform.look()
    assert platform.told() == [("parity", "batch and online#1", False), ("parity", "batch and online#1", True)]


def test_what_the_registry_says(platform: Platform) -> None:
    platform.promote()
    platform.look()
    now = datetime.now(UTC)
    stopped = StoppedCandidate(5, "pr_auc: 0.1 < 0.15", ("pr_auc_above_floor",), now)
    old = StoppedCandidate(1, "", (), now - TOLD_WITHIN - timedelta(hours=1))
    platform.registry.found = Findings((stopped, old), CHAMPION, "The files of version 3 are gone.")
    platform.look()
    platform.look()
    assert platform.told()[1:] == [("champion_missing", "version 3#1", False), ("gate_failed", "version-5", False)]
    platform.registry.found = Findings((stopped, old), CHAMPION - 1, None)
    platform.look()
    assert len(platform.told()) == 3, "a look at another champion"
    platform.registry.found = Findings((stopped, old), CHAMPION, None)
    platform.look()
    assert platform.told()[3:] == [("champion_missing", "version 3#1", True)]


def sink_page(*, dead_letters: int) -> bytes:
    metrics = SinkMetrics()
    metrics.bad.labels("decisions", "malformed").inc(dead_letters)
    return generate_latest(metrics.registry)


def test_growing_dead_letters_and_a_process_that_goes_away(platform: Platform) -> None:
    with receiving(Answer(body=sink_page(dead_letters=3))) as sink:
        address = f"{sink.url}/metrics"
        platform.settings = Settings(watch_urls=f" {address} ,", watch_dead_letters=5)
        assert "1 of 1 watched addresses answer" in platform.look()
        sink.answer_from_now_on(Answer(body=sink_page(dead_letters=8)))
        platform.let_pass(60)
        platform.look()
        assert platform.told() == [("dead_letters", f"{address}#1", False)]
    platform.look()
    assert "Not yet told: degraded/away:" in platform.look()
    platform.let_pass(AWAY_FOR.total_seconds())
    platform.look()
    assert platform.told()[1:] == [("degraded", f"away:{address}#1", False)]
    platform.settings = Settings(watch_urls="")
    platform.look()
    assert {(kind, resolves) for kind, _, resolves in platform.told()[2:]} == {
        ("dead_letters", True),
        ("degraded", True),
    }


def failed_run(
    platform: Platform, *, job: str = "retrain", assets: tuple[str, ...] = (), tags: dict[str, str] | None = None
) -> None:
    run = platform.instance.add_run(
        dg.DagsterRun(
            job_name=job, status=dg.DagsterRunStatus.FAILURE, tags=tags or {},
            asset_selection=frozenset(map(dg.AssetKey, assets)) or None,
        )
    )  # fmt: skip
    event = dg.DagsterEvent(event_type_value="PIPELINE_FAILURE", job_name=job, message="it broke at redis://u:pw@x")
    with dg.build_run_status_sensor_context(
        sensor_name="tell_failed_runs", dagster_event=event, dagster_instance=platform.instance, dagster_run=run,
        resources={"ledger": platform.ledger, "settings": platform.settings},
    ) as context:  # fmt: skip
        tell_failed_runs(context.for_run_failure())


def test_a_failed_job_is_told_until_it_has_succeeded(platform: Platform) -> None:
    failed_run(platform)
    failed_run(platform)
    platform.look()
    assert platform.told() == [("run_failed", "retrain#1", False)]
    notice = NoticeBook(platform.ledger.database).newest(limit=1)[0].notice
    assert "it broke at redis://u:***@x" in notice.text
    assert notice.link == f"http://ui:3000/runs/{notice.facts['run_id']}"
    for name in ("monitor", "retrain"):
        assert len(platform.told()) == 1

        @dg.job(name=name)
        def succeeds() -> None:
            return

        assert succeeds.execute_in_process(instance=platform.instance).success
        platform.look()
    assert platform.told()[1:] == [("run_failed", "retrain#1", True)]


def test_a_failed_run_of_assets_is_over_when_they_are_made(platform: Platform) -> None:
    failed_run(platform, job="__ASSET_JOB", assets=("features", "labels"))
    platform.materialized("features")
    platform.look()
    assert [resolves for *_, resolves in platform.told()] == [False]
    platform.materialized("labels")
    platform.look()
    assert [resolves for *_, resolves in platform.told()] == [False, True]


def test_a_run_that_is_started_again_is_no_news(platform: Platform) -> None:
    failed_run(platform, tags={notices.WILL_RETRY: "true"})
    assert platform.told() == []


def test_the_tag_is_dagsters_own() -> None:
    from dagster._core.storage.tags import WILL_RETRY_TAG

    assert notices.WILL_RETRY == WILL_RETRY_TAG


def test_the_real_failure_of_a_step_is_told(platform: Platform) -> None:
    """Through Dagster's own machinery: the innermost error, not that some step failed."""

    @dg.op
    def trains() -> None:
        try:
            raise OSError("no space left on /models")
        except OSError as err:
            raise RuntimeError("training failed") from err

    @dg.job(name="retrain")
    def job() -> None:
        trains()

    result = job.execute_in_process(instance=platform.instance, raise_on_error=False)
    context = dg.build_run_status_sensor_context(
        sensor_name="tell_failed_runs", dagster_event=result.get_run_failure_event(), dagster_instance=platform.instance,
        dagster_run=result.dagster_run, resources={"ledger": platform.ledger, "settings": platform.settings},
    )  # fmt: skip
    with context:
        tell_failed_runs(context.for_run_failure())
    (told,) = NoticeBook(platform.ledger.database).newest(limit=9)
    assert "trains: OSError: no space left on /models" in told.notice.text


def test_the_sensor_delivers_and_says_what_it_did(platform: Platform) -> None:
    platform.promote()
    platform.look()
    with receiving() as receiver:
        platform.settings = Settings(notify_webhook_url=SecretStr(receiver.url))
        assert platform.deliver() == "log: 1 delivered; webhook: 1 delivered"
        assert platform.deliver() == "Nothing to deliver. Channels: log, webhook."
    assert [json.loads(posted.body)["title"] for posted in receiver.posted] == ["Version 3 is champion"]


@pytest.fixture
def second(ledger: Ledger, tmp_path: Path) -> Iterator[Callable[[], Platform]]:
    """Another daemon: its own instance and connection, the same ledger."""
    opened = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    with dg.DagsterInstance.ephemeral() as other:
        yield lambda: Platform(other, opened, Settings())
    opened.close()


def test_two_daemons_tell_once(platform: Platform, second: Callable[[], Platform]) -> None:
    other = second()
    platform.promote()
    for daemon in (platform, other):
        daemon.report("drift")
        daemon.look()
    assert platform.told() == [("drift", "world#1", False), ("promotion", "promotion-1", False)]
