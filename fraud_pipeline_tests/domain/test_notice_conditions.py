"""Which episodes begin and end, by what holds and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from fraud_pipeline.domain.notice import LONGEST_EPISODE, RecordedNotice
from fraud_pipeline.domain.notice_conditions import Changes, Condition, judge, number_of, subject_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATE = Condition("lag", "scorer", True, at=NOW, text="It is late.", title="The scorer falls behind", facts={"lag": 7})
PATIENT = replace(LATE, begins_after=timedelta(minutes=2), ends_after=timedelta(minutes=3))


def told(condition: Condition, number: int = 1) -> RecordedNotice:
    return RecordedNotice(1, condition.beginning(number), NOW)


def at(
    minutes: float, condition: Condition, *opened: RecordedNotice, pending: Mapping[str, datetime] | None = None
) -> Changes:
    return judge([condition], opened, pending=pending or {}, now=NOW + timedelta(minutes=minutes))


def test_what_holds_begins_an_episode_and_what_no_longer_holds_ends_it() -> None:
    assert at(0, LATE).begin == (LATE,)
    assert at(0, LATE, told(LATE)) == Changes((), (), {})
    over = at(5, replace(LATE, holds=False, text="It has caught up."), told(LATE))
    assert over.begin == ()
    (end,) = over.end
    assert (end.episode, end.resolves, end.text) == ("scorer#1", True, "It has caught up.")
    assert at(0, replace(LATE, holds=False)) == Changes((), (), {})


def test_what_comes_and_goes_wakes_nobody() -> None:
    first = at(0, PATIENT)
    assert (first.begin, first.pending) == ((), {"lag/scorer": NOW})
    still = at(1.5, PATIENT, pending=first.pending)
    assert (still.begin, still.pending) == ((), first.pending)
    gone = at(1.8, replace(PATIENT, holds=False), pending=still.pending)
    assert gone == Changes((), (), {})
    back = at(2.5, PATIENT, pending=gone.pending)
    assert back.begin == ()


def test_what_holds_long_enough_is_told() -> None:
    pending = at(0, PATIENT).pending
    changes = at(2, PATIENT, pending=pending)
    assert (changes.begin, changes.pending) == ((PATIENT,), {})


def test_an_episode_does_not_end_for_a_moment() -> None:
    clear = replace(PATIENT, holds=False)
    pending = at(0, clear, told(PATIENT)).pending
    assert at(1, PATIENT, told(PATIENT), pending=pending) == Changes((), (), {})
    assert at(2, clear, told(PATIENT), pending=pending).end == ()
    assert len(at(3, clear, told(PATIENT), pending=pending).end) == 1


def test_a_subject_that_was_not_judged_stays_as_it_is() -> None:
    pending = {"lag/scorer": NOW}
    assert judge([], [told(LATE)], pending=pending, now=NOW) == Changes((), (), pending)


def test_subjects_and_kinds_are_apart() -> None:
    other = replace(LATE, subject="sink")
    third = replace(LATE, kind="degraded")
    changes = judge([LATE, other, third], [told(LATE)], pending={}, now=NOW)
    assert changes.begin == (other, third)


def test_episodes_are_numbered_by_subject() -> None:
    notice = replace(LATE, subject="lag:http://x:1/metrics#2").beginning(12)
    assert notice.episode == "lag:http://x:1/metrics#2#12"
    assert subject_of(notice) == "lag:http://x:1/metrics#2"
    assert number_of(notice.episode) == 12
    assert number_of("promotion-3") == 0


def test_a_long_subject_is_cut_and_an_odd_one_printed() -> None:
    long = replace(LATE, subject="a\n" + "x" * 500)
    notice = long.beginning(1_234_567)
    assert len(notice.episode) <= LONGEST_EPISODE
    assert notice.episode.startswith("a?x")
    assert judge([long], [RecordedNotice(1, notice, NOW)], pending={}, now=NOW).begin == ()
