"""A topic with more partitions than before: every customer's history goes along; and states made anew from the logs alone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from fraud_pipeline.adapters.decision_check import SHARED_INPUTS
from fraud_pipeline.adapters.kafka.messages import Place, header_text, read_decision
from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.model_slot import ModelSlot
from fraud_pipeline.adapters.stream.past_run import cursor
from fraud_pipeline.adapters.stream.raw_rows import LedgerRawRows
from fraud_pipeline.adapters.stream.rebuild import Closed, closed_up_to, rebuild, replace_kept
from fraud_pipeline.adapters.stream.repartition import Divided, divide, first_misplaced, hear_all
from fraud_pipeline.adapters.stream.stream_check import DecidedLog, StreamCheck
from fraud_pipeline.adapters.stream.stream_parity import Written
from fraud_pipeline.adapters.stream.writer_states import WriterStates
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.feature_many_writers import WriterLog, compute_features_of_writers
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.domain.feature_writer import WriterState
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import StateError
from fraud_pipeline_tests.adapters.test_stream_past import START, bundle, models_of
from fraud_pipeline_tests.memory_stream import MemoryBroker, MemoryScorer, Stored, payments, sink, writer_states
from fraud_pipeline_tests.serving.home import empty_home

BEFORE, AFTER = 400, 300
STEP = timedelta(minutes=3)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Ledger, ModelSlot]]:
    with models_of(empty_home(tmp_path / "home")) as found:
        yield found


def all_payments() -> list[Transaction]:
    return payments(BEFORE + AFTER, start=START, step=STEP, customers=60)


def begun(models: ModelSlot, folder: Path) -> MemoryBroker:
    """Two partitions of payments and labels, all decided."""
    broker = MemoryBroker(Topics(), 2)
    pay(broker, all_payments()[:BEFORE])
    scorer = MemoryScorer(broker, models, folder)
    scorer.work()
    scorer.keep()
    return broker


def pay(broker: MemoryBroker, some: list[Transaction]) -> None:
    for number, payment in enumerate(some):
        broker.pay([payment])
        if number % 12 == 3:
            broker.label(payment, payment.event_time)


def shared_messages(broker: MemoryBroker) -> Iterator[tuple[int, int, Any]]:
    for each in broker.messages(broker.topics.shared_state):
        if each.offset() >= broker.begins[broker.topics.shared_state, each.partition()]:
            yield each.partition(), each.offset(), orjson.loads(each.value())


def divided(broker: MemoryBroker, folder: Path, count: int) -> Divided:
    """What the command does."""
    old = writer_states(broker, folder)
    merged, offsets = old.merged()
    ends = hear_all(merged, offsets, shared_messages(broker))
    states = [old.recover(place, broker.positions[place], merged) for place in range(broker.partitions)]
    broker.partitions = count
    new = writer_states(broker, folder)
    with pytest.raises(StateError, match=f"has {count} partitions, and its state is that of 2"):
        new.check_layout()
    found = divide(states, merged, new.writers, {})
    new.kept.keep_origin(found.states, found.merged, ends)
    new.check_layout()
    return found


def decisions_of(broker: MemoryBroker) -> dict[str, Decision]:
    found = [read_decision(each.value())[0] for each in broker.messages(broker.topics.decisions)]
    assert len(found) == len({each.transaction_id for each in found})
    return {each.transaction_id: each for each in found}


def one_writer(some: list[Transaction]) -> np.ndarray[Any, Any]:
    merged = MergedState(["one"])
    state = WriterState("one", merged.state)
    return compute_features_of_writers({"one": state}, merged, {"one": WriterLog(state.rows_of(some))})["one"]


@pytest.mark.parametrize("count", [4, 3])
def test_own_history_goes_on_as_if_there_were_one_writer(
    opened: tuple[Ledger, ModelSlot], tmp_path: Path, count: int
) -> None:
    models, folder = opened[1], tmp_path / "kept"
    broker = begun(models, folder)
    found = divided(broker, folder, count)
    assert 0 < found.moved < 60
    for place, state in enumerate(found.states.values()):
        assert {partition_of(customer.encode(), count) for customer in state.own.customers} == {place}
    pay(broker, all_payments()[BEFORE:])
    broker.pay(all_payments()[BEFORE - 20 : BEFORE])  # repeats, of customers who have moved too
    after = MemoryScorer(broker, models, folder)
    after.work()
    assert after.metrics.repeats == 20
    decided, wanted = decisions_of(broker), one_writer(all_payments())
    assert len(decided) == BEFORE + AFTER
    inputs = bundle("1").inputs
    own = [place for place, name in enumerate(bundle("1").input_names) if name not in SHARED_INPUTS]
    for row, payment in enumerate(all_payments()):
        vector = inputs.vector(wanted[row], payment)
        served = decided[payment.transaction_id].vector
        assert vector[own].tobytes() == served[own].tobytes(), payment.transaction_id


@pytest.mark.parametrize("count", [4, 3])
def test_what_comes_after_a_change_agrees_with_what_the_layout_began_with(
    opened: tuple[Ledger, ModelSlot], tmp_path: Path, count: int
) -> None:
    models, folder = opened[1], tmp_path / "kept"
    broker = begun(models, folder)
    divided(broker, folder, count)
    first = {place: broker.positions.get(place, 0) for place in range(count)}
    pay(broker, all_payments()[BEFORE:])
    MemoryScorer(broker, models, folder).work()
    states = writer_states(broker, folder)
    merged, offsets = states.kept.merged_beginning()
    writers = {w: states.kept.writer_beginning(place, merged) for place, w in enumerate(states.writers)}
    cuts = {writer: list(merged.clock_closings[writer]) for writer in states.writers}
    for partition, offset, value in shared_messages(broker):
        if value["by_clock"] and offset >= offsets.get(partition, 0):
            cuts[value["writer"]].append((value["offset"], value["minute"]))
    ends = {place: len(broker.content[broker.topics.transactions, place]) for place in range(count)}
    check = StreamCheck(
        writers, merged,
        {w: cursor(states.items(place, first[place], ends[place]), cuts[w]) for place, w in enumerate(states.writers)},
        {place: DecidedLog(written(broker.content[broker.topics.decisions, place]), first[place], ends[place])
         for place in ends},
        bundle_of=bundle,
    )  # fmt: skip
    report = check.run()
    assert report.equal
    assert report.payments == AFTER


def written(messages: list[Stored]) -> Iterator[Written]:
    for each in messages:
        place = Place.parse(header_text(each.headers(), "source") or "")
        yield Written(place.partition, place.offset, "decided", read_decision(each.value())[0])


def test_a_layout_that_was_not_made_wholly_is_none(opened: tuple[Ledger, ModelSlot], tmp_path: Path) -> None:
    models, folder = opened[1], tmp_path / "kept"
    broker = begun(models, folder)
    found = divided(broker, folder, 4)
    kept = writer_states(broker, folder).kept
    kept.store.remove(f"{kept.folder('shared')}/origin.state")
    with pytest.raises(StateError, match="its state is that of 2"):
        kept.check_layout()
    kept.keep_origin(found.states, found.merged, {})
    kept.check_layout()
    with pytest.raises(StateError, match="has 2 partitions, and its state is that of 4: the topic was made anew"):
        kept.of_layout(2).check_layout()


def test_a_layout_without_checkpoints_begins_with_its_origin_again(
    opened: tuple[Ledger, ModelSlot], tmp_path: Path
) -> None:
    models, folder = opened[1], tmp_path / "kept"
    broker = begun(models, folder)
    divided(broker, folder, 4)
    pay(broker, all_payments()[BEFORE:])
    scorer = MemoryScorer(broker, models, folder)
    scorer.work()
    wanted = [state.snapshot() for _, state in sorted(scorer.loop.owned.items())]
    states = writer_states(broker, folder)
    merged, offsets = states.merged()
    hear_all(merged, offsets, shared_messages(broker))
    assert [states.recover(place, broker.positions[place], merged).snapshot() for place in range(4)] == wanted


def test_a_payment_of_before_the_change_is_found(opened: tuple[Ledger, ModelSlot], tmp_path: Path) -> None:
    broker = begun(opened[1], tmp_path / "kept")
    states = writer_states(broker, tmp_path / "kept")
    items = [item for page in states.items(0, 10, 100) for item in page]
    found = first_misplaced(items, 0, 4)
    assert found is not None
    assert found.payment is not None
    assert partition_of(found.payment.customer_id.encode(), 4) == 2
    assert first_misplaced(items, 0, 2) is None


def rebuilt_from(states: WriterStates, broker: MemoryBroker, known: dict[str, Closed] | None = None) -> Any:
    until = {place: broker.positions[place] for place in range(broker.partitions)}
    by_writer = dict(zip(states.writers, until.values(), strict=True))
    closed = closed_up_to(
        shared_messages(broker), by_writer, known or {writer: Closed(0, 0) for writer in states.writers}
    )
    return rebuild(states, until, closed)


def test_states_made_anew_are_those_that_scorers_hold(opened: tuple[Ledger, ModelSlot], tmp_path: Path) -> None:
    ledger, models = opened
    broker = begun(models, tmp_path / "kept")
    scorer = MemoryScorer(broker, models, tmp_path / "kept")
    scorer.loop.step()
    wanted = {state.writer: state.snapshot() for state in scorer.loop.owned.values()}
    sink(broker, ledger)
    for gone in (False, True):
        if gone:  # retention has passed over nearly everything
            for place in (0, 1):
                broker.forget_before(broker.topics.transactions, place, broker.positions[place] - 5)
                held = broker.content[broker.topics.shared_state, place]
                broker.forget_before(broker.topics.shared_state, place, len(held) - 2)
        states = writer_states(broker, tmp_path / f"anew-{gone}", raw=LedgerRawRows(ledger.database))
        made = rebuilt_from(states, broker)
        assert {state.writer: state.snapshot() for state in made.states} == wanted
        assert made.merged.closed == scorer.loop.merged.closed  # type: ignore[union-attr]
        assert hear_all(made.merged, made.shared_offsets, shared_messages(broker)) == made.shared_offsets
        names, differing = replace_kept(states, made)
        assert (len(names), differing) == (3, [])
        assert replace_kept(states, made) == (names, [])
    pay(broker, all_payments()[BEFORE:])
    MemoryScorer(broker, models, tmp_path / "anew-True").work()
    later = decisions_of(broker)
    other = begun(models, tmp_path / "other")
    pay(other, all_payments()[BEFORE:])
    MemoryScorer(other, models, tmp_path / "other").work()
    assert {each: later[each].features for each in later} == {
        each: decision.features for each, decision in decisions_of(other).items()
    }


def test_a_checkpoint_that_says_otherwise_is_told_and_replaced(
    opened: tuple[Ledger, ModelSlot], tmp_path: Path
) -> None:
    broker = begun(opened[1], tmp_path / "kept")
    states = writer_states(broker, tmp_path / "kept")
    made = rebuilt_from(states, broker)
    names, differing = replace_kept(states, made)
    assert differing == []
    states.kept.store.remove(names[0])
    states.kept.store.write(names[0], b"another state")
    assert replace_kept(states, made) == (names, [names[0]])
    assert states.kept.store.read(names[0]) == made.states[0].snapshot()


def test_a_layout_in_use_is_known_before_anything_is_kept(opened: tuple[Ledger, ModelSlot], tmp_path: Path) -> None:
    broker = MemoryBroker(Topics(), 2)
    MemoryScorer(broker, opened[1], tmp_path / "kept")
    broker.partitions = 4
    with pytest.raises(StateError, match="its state is that of 2"):
        writer_states(broker, tmp_path / "kept").check_layout()
