"""When figures of a metrics page are trouble."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from fraud_pipeline.domain.notice import RecordedNotice
from fraud_pipeline.domain.notice_conditions import Condition
from fraud_pipeline.domain.platform_memory import FORGET_AFTER, Memory
from fraud_pipeline.domain.platform_rules import (
    SAMPLE_EVERY,
    WINDOW,
    Figures,
    Limits,
    Role,
    Sample,
    Target,
    increase,
    judge_target,
    keep,
    no_longer_watched,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADDRESS = "http://scorer:9105/metrics"


def minutes_ago(minutes: float, **values: float) -> Sample:
    return Sample(NOW - timedelta(minutes=minutes), values)


def judged(role: Role, values: dict[str, float], *past: Sample, limits: Limits | None = None) -> dict[str, Condition]:
    target = Target(ADDRESS, Figures(role, values), "", past)
    found = list(judge_target(target, limits=limits or Limits(), now=NOW))
    by_key = {condition.key.removesuffix(ADDRESS): condition for condition in found}
    assert len(by_key) == len(found)
    return by_key


def test_a_counter_that_restarts_counts_from_zero() -> None:
    past = [minutes_ago(3, n=100), minutes_ago(2, n=130), minutes_ago(1, n=5)]
    assert increase(past, {"n": 9}, "n") == 30 + 5 + 4
    assert increase([], {"n": 9}, "n") == 0
    assert increase(past, {"n": 9}, "unknown") == 0


def test_samples_are_kept_one_a_minute_for_the_window() -> None:
    kept: tuple[Sample, ...] = ()
    for seconds in range(0, 3_600, 30):
        kept = keep(kept, {"n": seconds}, now=NOW + timedelta(seconds=seconds))
    assert [sample.values["n"] for sample in kept] == list(range(3_000, 3_600, 60))
    assert kept[-1].at - kept[0].at <= WINDOW
    assert all(later.at - earlier.at == SAMPLE_EVERY for earlier, later in pairwise(kept))
    assert keep([minutes_ago(-5, n=1)], {"n": 2}, now=NOW) == (Sample(NOW, {"n": 2}),), "a clock that was set back"


@pytest.mark.parametrize("figures", [None, Figures("service", {"ready": 0.0})])
def test_a_process_that_is_away_or_not_ready_is_critical_after_a_while(figures: Figures | None) -> None:
    target = Target(ADDRESS, figures, "no answer: refused")
    away = next(iter(judge_target(target, limits=Limits(), now=NOW)))
    assert (away.holds, away.severity, away.subject) == (True, "critical", f"away:{ADDRESS}")
    assert away.begins_after > timedelta(minutes=1)
    assert ("refused" in away.text) == (figures is None)


def test_of_a_page_that_cannot_be_read_nothing_else_is_said() -> None:
    assert len(list(judge_target(Target(ADDRESS, None, "no answer"), limits=Limits(), now=NOW))) == 1


def test_a_healthy_scorer_is_in_no_trouble() -> None:
    past = [minutes_ago(n, taken=100_000 - n * 9_000, decisions=1_000 - n * 90) for n in (9, 5, 1)]
    found = judged("scorer", {"taken": 100_000, "lag": 12, "decisions": 1_000}, *past)
    assert set(found) == {"degraded/away:", "lag/", "dead_letters/", "degraded/decisions:"}
    assert not any(condition.holds for condition in found.values())


def test_a_scorer_far_behind_lags_and_one_that_takes_nothing_stands_still() -> None:
    behind = judged("scorer", {"lag": 500, "taken": 90}, minutes_ago(1, taken=50), limits=Limits(lag=400))["lag/"]
    assert (behind.holds, behind.severity) == (True, "warning")
    stuck = judged("sink", {"lag": 500, "taken": 50}, minutes_ago(1, taken=50))["lag/"]
    assert (stuck.holds, stuck.severity) == (True, "critical")
    assert "stands still" in stuck.title
    assert not judged("sink", {"lag": 12, "taken": 50}, minutes_ago(1, taken=50))["lag/"].holds, "markers"
    assert not judged("sink", {"lag": 500, "taken": 50})["lag/"].holds, "nothing to compare with yet"
    assert stuck.begins_after > timedelta(0) < stuck.ends_after


def test_dead_letters_are_told_by_how_fast_they_come() -> None:
    limits = Limits(dead_letters=10)
    assert judged("sink", {"dead_letters": 30}, minutes_ago(9, dead_letters=20), limits=limits)["dead_letters/"].holds
    few = judged("sink", {"dead_letters": 29}, minutes_ago(9, dead_letters=20), limits=limits)["dead_letters/"]
    assert not few.holds
    assert not judged("sink", {"dead_letters": 29}, limits=limits)["dead_letters/"].holds, "all before the first look"


def test_the_share_of_degraded_decisions_needs_enough_of_them() -> None:
    limits = Limits(degraded_share=0.01)
    before = minutes_ago(9, decisions=1_000, degraded=0)
    bad = judged("service", {"decisions": 2_000, "degraded": 10}, before, limits=limits)["degraded/decisions:"]
    assert bad.holds
    assert "1.0% of 1,000" in bad.text
    good = judged("service", {"decisions": 2_000, "degraded": 9}, before, limits=limits)["degraded/decisions:"]
    assert not good.holds
    few = judged("service", {"decisions": 1_100, "degraded": 100}, before, limits=limits)
    assert "degraded/decisions:" not in few


def test_a_service_that_journals_has_lost_its_ledger_and_a_replica_always_journals() -> None:
    assert judged("service", {"journal": 3})["degraded/stores:"].holds
    assert "the ledger" in judged("service", {"journal": 3})["degraded/stores:"].text
    assert not judged("service", {"journal": 0})["degraded/stores:"].holds
    assert not judged("service", {"journal": 3, "log_away": 0})["degraded/stores:"].holds
    assert "Kafka" in judged("service", {"journal": 3, "log_away": 1})["degraded/stores:"].text


def test_an_address_that_is_no_longer_watched_ends_its_episodes() -> None:
    away = next(iter(judge_target(Target(ADDRESS, None, "gone"), limits=Limits(), now=NOW)))
    opened = RecordedNotice(1, away.beginning(1), NOW)
    assert no_longer_watched([opened], {ADDRESS}, now=NOW) == []
    (ended,) = no_longer_watched([opened], {"http://another/metrics"}, now=NOW)
    assert (ended.key, ended.holds) == (away.key, False)
    unaddressed = RecordedNotice(2, replace(away, facts={}).beginning(1), NOW)
    assert no_longer_watched([unaddressed], set(), now=NOW) == []


def test_the_memory_comes_back_as_it_was() -> None:
    memory = Memory({ADDRESS: (minutes_ago(2, n=1.5), minutes_ago(1, n=2))}, {"lag/x": NOW - timedelta(seconds=30)})
    text = memory.to_json(now=NOW)
    assert Memory.from_json(text, now=NOW + timedelta(seconds=30)) == memory


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"at": "x"}', '{"at": 1, "samples": 5, "pending": {}}'])
def test_a_memory_that_cannot_be_read_is_none(text: str | None) -> None:
    assert Memory.from_json(text, now=NOW) == Memory()


def test_an_old_memory_forgets_what_was_pending_and_one_of_the_future_everything() -> None:
    memory = Memory({ADDRESS: (minutes_ago(1, n=1),)}, {"lag/x": NOW})
    old = Memory.from_json(memory.to_json(now=NOW), now=NOW + FORGET_AFTER + timedelta(seconds=1))
    assert old == Memory(memory.samples, {})
    assert Memory.from_json(memory.to_json(now=NOW), now=NOW - timedelta(seconds=1)) == Memory()
