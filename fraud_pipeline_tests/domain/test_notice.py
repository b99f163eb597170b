"""What a notice may be, and when a failed delivery is tried again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_pipeline.domain.notice import (
    ENDING_KINDS,
    FIRST_RETRY,
    GIVE_UP_AFTER,
    JITTER,
    KINDS,
    LONGEST_RETRY,
    LONGEST_RETRY_AFTER,
    Delivery,
    Notice,
    at_least,
    next_attempt,
    without_secrets,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LAG = Notice("lag", "warning", "scorer#1", "The scorer falls behind", "It is late.", {"lag": 5}, None, NOW)


def test_the_end_of_an_episode_has_its_key_and_its_severity() -> None:
    over = LAG.over("It has caught up.", at=NOW + timedelta(hours=1), facts={"lag": 0})
    assert over.resolves
    assert (over.key, over.severity) == (LAG.key, "warning") == ("lag/scorer#1", "warning")
    assert over.title == "Over: The scorer falls behind"
    assert (over.text, over.facts, over.at) == ("It has caught up.", {"lag": 0}, NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "weather"}, "no kind of notice"),
        ({"severity": "fatal"}, "no severity"),
        ({"episode": ""}, "printable characters"),
        ({"episode": "x" * 161}, "printable characters"),
        ({"episode": "a\nb"}, "printable characters"),
        ({"title": "two\nlines"}, "not one line"),
        ({"title": " "}, "not one line"),
        ({"at": datetime(2026, 3, 1)}, "no time zone"),  # noqa: DTZ001 - that is the point
    ],
)
def test_what_no_channel_could_carry_is_no_notice(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(LAG, **change)  # type: ignore[arg-type]


def test_what_ends_is_a_kind() -> None:
    assert set(ENDING_KINDS) < set(KINDS)


def test_severities_are_ordered() -> None:
    assert at_least("info") == ("info", "warning", "critical")
    assert at_least("critical") == ("critical",)


def test_waits_double_until_they_are_half_an_hour() -> None:
    waits = [
        next_attempt(attempts=attempt, asked_at=NOW, now=NOW, chance=0.0) - NOW  # type: ignore[operator]
        for attempt in range(1, 10)
    ]
    assert waits[:4] == [FIRST_RETRY * 2**doubling for doubling in range(4)]
    assert waits[-1] == LONGEST_RETRY
    assert waits == sorted(waits)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_no_wait_is_shorter_than_the_first_or_longer_than_the_longest(attempts: int, chance: float) -> None:
    again = next_attempt(attempts=attempts, asked_at=NOW, now=NOW, chance=chance)
    assert again is not None
    assert FIRST_RETRY <= again - NOW <= LONGEST_RETRY * (1 + JITTER)


def test_chance_parts_those_that_failed_together() -> None:
    early, late = (next_attempt(attempts=3, asked_at=NOW, now=NOW, chance=chance) for chance in (0.0, 0.99))
    assert early is not None
    assert late is not None
    assert late - early > timedelta(seconds=10)


def test_what_the_receiver_asks_for_counts_where_it_is_longer_and_no_nonsense() -> None:
    def wait(seconds: int) -> timedelta:
        again = next_attempt(attempts=1, asked_at=NOW, now=NOW, chance=0.0, retry_after=timedelta(seconds=seconds))
        assert again is not None
        return again - NOW

    assert wait(120) == timedelta(seconds=120)
    assert wait(1) == FIRST_RETRY
    assert wait(10_000_000) == LONGEST_RETRY_AFTER


def test_three_days_in_vain_are_enough() -> None:
    nearly = NOW + GIVE_UP_AFTER - timedelta(seconds=1)
    assert next_attempt(attempts=99, asked_at=NOW, now=nearly, chance=0.0) is not None
    assert next_attempt(attempts=99, asked_at=NOW, now=NOW + GIVE_UP_AFTER, chance=0.0) is None


def test_a_delivery_says_where_it_stands() -> None:
    waiting = Delivery(1, "slack", NOW, attempts=0, next_attempt_at=NOW)
    assert waiting.state == "waiting"
    assert replace(waiting, attempts=2).state == "retrying"
    assert replace(waiting, attempts=2, next_attempt_at=None, failed_at=NOW).state == "failed"
    assert replace(waiting, attempts=2, next_attempt_at=None, delivered_at=NOW).state == "delivered"


def test_secrets_and_passwords_do_not_pass() -> None:
    said = "cannot reach\nhttps://hooks.example/T1/s3cret as smtp://me:pa55@mail \x1b[31m"
    clean = without_secrets(said, ("s3cret", "", "https://hooks.example/T1/s3cret"))
    assert clean == "cannot reach *** as smtp://me:***@mail [31m"
