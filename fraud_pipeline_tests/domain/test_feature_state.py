"""State is a function of the log: it can be cut, saved, restored and handed between the executors anywhere."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraud_pipeline.domain.feature_batch import compute_features
from fraud_pipeline.domain.feature_spec import FEATURE_NAMES, INDEX
from fraud_pipeline.domain.feature_state import FeatureState
from fraud_pipeline.errors import FraudError, StateError
from fraud_pipeline_tests.domain.histories import (
    START,
    History,
    apply_online,
    change_of,
    event_columns,
    histories,
    label_change_of,
    label_columns,
    online_matrix,
    transaction_of,
)
from fraud_pipeline_tests.domain.oracle import DAY, HOUR, MINUTE, SECOND, Change, Payment, places_of

quick = settings(
    max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def assert_same_bits(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


def chunks_of(history: History, cuts: list[int]) -> list[History]:
    """The same log in pieces: each label goes with the piece of the payment that it stands before."""
    places = places_of(history.payments, history.changes) if history.places is None else history.places
    borders = [0, *sorted(cuts), len(history.payments)]
    pieces = []
    for number, (start, stop) in enumerate(pairwise(borders)):
        end = stop + (number == len(cuts))
        mine = [i for i, place in enumerate(places) if start <= place < end]
        relative = None if history.places is None else [places[i] - start for i in mine]
        pieces.append(History(history.payments[start:stop], [history.changes[i] for i in mine], relative))
    return pieces


@st.composite
def cut_histories(draw: st.DrawFn, *, most: int = 3) -> tuple[History, list[History]]:
    history = draw(histories(longest=30, served=True))
    cuts = draw(st.lists(st.integers(0, len(history.payments)), min_size=1, max_size=most))
    return history, chunks_of(history, cuts)


def batch(history: History, state: FeatureState | None = None) -> tuple[np.ndarray, FeatureState]:
    result = compute_features(event_columns(history.payments), history.labels, state=state)
    return result.values, result.state


@quick
@given(histories(longest=30, served=True), st.data())
def test_a_snapshot_anywhere_in_the_log_continues_identically(history: History, data: st.DataObject) -> None:
    log = history.log
    cut = data.draw(st.integers(0, len(log)))
    state = FeatureState.empty()
    before = apply_online(state, log[:cut])
    snapshot = state.snapshot()
    after = apply_online(FeatureState.restore(snapshot), log[cut:])
    assert_same_bits(np.vstack([before, after]), online_matrix(history))
    assert_same_bits(after, apply_online(state, log[cut:]))  # and the state that was saved goes on as well


@quick
@given(cut_histories())
def test_a_batch_in_chunks_equals_the_whole(cut: tuple[History, list[History]]) -> None:
    whole, pieces = cut
    state: FeatureState | None = None
    values = []
    for piece in pieces:
        part, state = batch(piece, state)
        values.append(part)
    assert_same_bits(np.vstack(values), batch(whole)[0])


@quick
@given(cut_histories())
def test_batch_and_online_take_over_from_each_other(cut: tuple[History, list[History]]) -> None:
    """Pieces computed in turn by batch and online, each from the other's snapshot, equal one long batch."""
    whole, pieces = cut
    state = FeatureState.empty()
    values = []
    for number, piece in enumerate(pieces):
        if number % 2:
            part, state = batch(piece, state)
        else:
            part = apply_online(state, piece.log)
        values.append(part)
        state = FeatureState.restore(state.snapshot())
    assert_same_bits(np.vstack(values), batch(whole)[0])


def test_a_label_that_comes_after_half_a_year_without_payments_survives_a_snapshot() -> None:
    """Found by the test above: the merchant's last payment was past the horizon, its label was an hour old."""
    start, later = 1_728_000_000 * SECOND, 1_728_000_000 * SECOND + 181 * DAY
    old = Payment(time=start, customer="a", merchant="m1", amount_minor=100)
    newest = Payment(time=later, customer="a", merchant="m0", amount_minor=100)
    change = Change(known_at=later - HOUR, event_time=start, change=1, merchant="m1")
    again = Payment(time=later, customer="a", merchant="m1", amount_minor=100)
    whole = History([old, newest, again], [change], [1])
    state = FeatureState.empty()
    before = apply_online(state, whole.log[:3])
    after = apply_online(FeatureState.restore(state.snapshot()), whole.log[3:])
    assert_same_bits(np.vstack([before, after]), batch(whole)[0])
    assert after[0, INDEX["merchant_seconds_since_last_fraud"]] < 2 * 3_600


@quick
@given(histories(longest=20, served=True))
def test_reading_changes_nothing(history: History) -> None:
    state = FeatureState.empty()
    apply_online(state, history.log)
    before = state.snapshot()
    for number, payment in enumerate(history.payments):
        state.read(transaction_of(replace(payment, customer=f"stranger {number}", merchant="nowhere"), number))
        state.read(transaction_of(payment, number))
    assert state.snapshot() == before


@quick
@given(histories(longest=30, served=True), st.randoms(use_true_random=False))
def test_reads_that_are_thrown_away_change_no_later_value(history: History, chance: Random) -> None:
    """A retry, a shadow score, an event of the far future that is then refused: reads in any order, at any time."""
    state = FeatureState.empty()
    rows = []
    for entry in history.log:
        for _ in range(chance.randint(0, 2)):
            stray = chance.choice(history.payments)
            moved = chance.choice([0, -90 * DAY, -DAY, -HOUR, HOUR, DAY, 8 * DAY, 40 * DAY, 200 * DAY])
            state.read(transaction_of(replace(stray, time=stray.time + moved), 0))
        rows.append(apply_online(state, [entry]))
    assert_same_bits(np.vstack([*rows, online_matrix(History([], []))]), online_matrix(history))


@quick
@given(histories(longest=20, served=True))
def test_read_update_is_read_then_update(history: History) -> None:
    one, two = FeatureState.empty(), FeatureState.empty()
    for number, payment in enumerate(history.payments):
        transaction = transaction_of(payment, number)
        vector = np.array(one.read(transaction), copy=True)
        one.update(transaction)
        assert_same_bits(vector, np.asarray(two.read_update(transaction)))
    assert one.snapshot() == two.snapshot()


@quick
@given(histories(longest=20, served=True))
def test_a_restored_state_has_the_same_snapshot(history: History) -> None:
    state = FeatureState.empty()
    apply_online(state, history.log)
    snapshot = state.snapshot()
    assert isinstance(snapshot, bytes)
    assert FeatureState.restore(snapshot).snapshot() == snapshot


def test_an_empty_batch_changes_nothing() -> None:
    history = History([Payment(START + i * HOUR, "a") for i in range(5)], [])
    _, state = batch(history)
    snapshot = state.snapshot()
    values, after = batch(History([], []), state)
    assert values.shape == (0, len(FEATURE_NAMES))
    assert values.dtype == np.float32
    assert after.snapshot() == snapshot


def test_a_batch_of_labels_alone_is_applied() -> None:
    paid = Payment(START, "a")
    reader = Payment(START + 9 * DAY, "b")
    label = change_of(paid, START + 8 * DAY)
    _, state = batch(History([paid], []))
    _, state = batch(History([], [label]), state)
    values, _ = batch(History([reader], []), state)
    assert_same_bits(values, batch(History([paid, reader], [label]))[0][1:])
    assert values[0, INDEX["merchant_seconds_since_last_fraud"]] == DAY / SECOND - 60


def test_a_snapshot_keeps_its_time_zone() -> None:
    state = FeatureState.empty(time_zone="Pacific/Auckland")
    apply_online(state, [Payment(START, "a")])
    noon = transaction_of(Payment(START + 23 * HOUR, "a"), 1)
    assert FeatureState.restore(state.snapshot()).read(noon)[INDEX["hour"]] == 12.0


def test_a_state_of_another_zone_is_refused_instead_of_mixing_hours() -> None:
    state = FeatureState.empty(time_zone="Pacific/Auckland")
    with pytest.raises(FraudError, match="Pacific/Auckland"):
        compute_features(event_columns([Payment(START, "a")], "Europe/Brussels"), label_columns([]), state=state)
    result = compute_features(event_columns([Payment(START, "a")], "Europe/Brussels"), label_columns([]))
    assert result.state.time_zone == "Europe/Brussels"


SAVED = FeatureState.empty()
apply_online(
    SAVED, [*[Payment(START + i * HOUR, "a", device="d", country="BE") for i in range(30)], Change(START + DAY, START)]
)
SNAPSHOT = SAVED.snapshot()


HALF = SNAPSHOT[: len(SNAPSHOT) // 2]


@pytest.mark.parametrize("damaged", [b"", b"x", b"PK\x03\x04", SNAPSHOT[:-1], HALF, SNAPSHOT + b"\0", b"\0" * 4096])
def test_a_damaged_snapshot_is_refused(damaged: bytes) -> None:
    with pytest.raises(StateError):
        FeatureState.restore(damaged)


@settings(max_examples=200, deadline=None)
@given(at=st.integers(0, len(SNAPSHOT) - 1), flip=st.integers(1, 255))
def test_one_flipped_byte_anywhere_is_noticed(at: int, flip: int) -> None:
    damaged = bytearray(SNAPSHOT)
    damaged[at] ^= flip
    with pytest.raises(StateError):
        FeatureState.restore(bytes(damaged))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(StateError):
        FeatureState.restore(data)


def test_years_of_payments_keep_a_bounded_state() -> None:
    """One customer, merchant and device per day for two years: what is past its horizon leaves, and no value changes."""
    log = [
        Payment(START + day * DAY + i * MINUTE, f"c{day}", f"m{day}", device=f"d{day}")
        for day in range(730)
        for i in range(3)
    ]
    state = FeatureState.empty()
    apply_online(state, log[:600])
    after_200_days = len(state.snapshot())
    apply_online(state, log[600:])
    assert len(state.snapshot()) < 1.5 * after_200_days
    again = Payment(START + 730 * DAY, "c0", "m0", device="d0")
    fresh = apply_online(FeatureState.empty(), [Payment(START + 729 * DAY + 10 * MINUTE, "x", "mx"), again])[1]
    vector = apply_online(state, [again])[0]
    shared = [i for name, i in INDEX.items() if name.startswith(("category", "channel"))]
    own = [i for i in range(len(FEATURE_NAMES)) if i not in shared]
    assert_same_bits(vector[own], fresh[own])


def test_label_changes_go_through_the_same_door_in_both_executors() -> None:
    paid = [Payment(START + i * MINUTE, f"c{i}") for i in range(3)]
    changes = [change_of(paid[0], START + 8 * DAY), change_of(paid[0], START + 9 * DAY, -1)]
    _, by_batch = batch(History(paid, changes))
    online = FeatureState.empty()
    apply_online(online, paid)
    for change in changes:
        online.apply_label(label_change_of(change))
    reader = transaction_of(Payment(START + 10 * DAY, "r"), 9)
    assert_same_bits(np.asarray(by_batch.read(reader)), np.asarray(online.read(reader)))
