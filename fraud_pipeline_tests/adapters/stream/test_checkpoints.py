"""States that are kept and recovered: the newest sound checkpoint that is not ahead, then the log; a fork keeps what we would."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from fraud_pipeline.adapters.stream.checkpoint_keeper import EVERY_S, CheckpointKeeper
from fraud_pipeline.errors import DependencyError
from fraud_pipeline_tests.event_logs import EmbeddedRig
from fraud_pipeline_tests.memory_stream import payments
from fraud_pipeline_tests.scorer_rig import START, Scorer, decided, parity, pay, scorer

MADE = payments(90, start=START, step=timedelta(seconds=40))


@pytest.fixture
def rig(tmp_path: Path) -> EmbeddedRig:
    return EmbeddedRig(tmp_path, partitions=2)


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    at: float = 0.0

    def __call__(self) -> float:
        return self.at


def kept(folder: Path) -> dict[str, bytes]:
    """The checkpoints' names and contents."""
    files = [path for path in folder.rglob("*.state") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def writers(folder: Path) -> Iterator[Path]:
    """The files of the writers' states, oldest first."""
    yield from sorted(path for path in folder.rglob("*.state") if "transactions-" in path.parent.name)


def worked(one: Scorer, first: int, until: int) -> None:
    pay(one.rig, MADE[first:until])
    one.work()


def rested(one: Scorer) -> None:
    """Idle partitions have closed what they may, and it was heard."""
    for _ in range(4):
        one.loop.step()


def test_recovery_begins_at_the_newest_checkpoint(rig: EmbeddedRig, tmp_path: Path) -> None:
    with scorer(rig, tmp_path / "kept") as one:
        worked(one, 0, 40)
        one.keep()
        worked(one, 40, 60)
    with scorer(rig, tmp_path / "kept") as two:
        two.loop.step()
        assert two.metrics.replayed_events == 20
        worked(two, 60, 90)
    assert parity(rig).equal


def test_a_damaged_checkpoint_is_passed_over(
    rig: EmbeddedRig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with scorer(rig, tmp_path / "kept") as one:
        worked(one, 0, 30)
        one.keep()
        worked(one, 30, 60)
        one.keep()
    newest: dict[Path, Path] = {path.parent: path for path in sorted((tmp_path / "kept").rglob("*.state"))}
    for path in newest.values():
        path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING), scorer(rig, tmp_path / "kept") as two:
        two.loop.step()
        assert two.metrics.replayed_events == 30
        assert sum("passed over" in said for said in caplog.messages) == 3
        worked(two, 60, 90)
    assert parity(rig).equal


def test_a_checkpoint_ahead_of_what_was_committed_is_not_used(rig: EmbeddedRig, tmp_path: Path) -> None:
    """Of a transaction that was taken back."""
    with scorer(rig, tmp_path / "kept") as one:
        worked(one, 0, 40)
        one.keep()
        rig.file.append(
            [], reader="scorers",
            positions={(rig.topics.transactions, partition): state.offset - 5 for partition, state in one.loop.owned.items()},
        )  # fmt: skip
    with scorer(rig, tmp_path / "kept") as two:
        two.loop.step()
        assert two.metrics.replayed_events == 40 - 10
        assert {state.offset for state in two.loop.owned.values()} == {
            (two.log.position(partition) or 0) for partition in two.loop.owned
        }  # fmt: skip


def test_only_the_newest_checkpoints_stay(rig: EmbeddedRig, tmp_path: Path) -> None:
    with scorer(rig, tmp_path / "kept") as one:
        for number in range(6):
            worked(one, 10 * number, 10 * number + 10)
            one.keep()
    folders = {path.parent for path in writers(tmp_path / "kept")}
    assert [len(list(folder.glob("*.state"))) for folder in folders] == [3, 3]


def test_a_forked_child_keeps_what_the_scorer_itself_would(rig: EmbeddedRig, tmp_path: Path) -> None:
    clock = Clock()
    with scorer(rig, tmp_path / "forked") as one:
        keeper = CheckpointKeeper(one.states, one.shared, one.metrics, clock=clock)
        worked(one, 0, 60)
        states = one.loop.owned
        for partition, state in states.items():
            keeper.adopted(partition, state)
            keeper._kept[partition] = 0
        clock.at = EVERY_S - 1
        keeper.committed(states, {})
        assert not kept(tmp_path / "forked")
        clock.at = EVERY_S
        keeper.committed(states, {})
        pay(rig, MADE[60:])  # the parent goes on while the child writes
        before = {partition: state.offset for partition, state in states.items()}
        one.work()
        keeper.close()
        assert one.metrics.checkpoints == 1
        forked = kept(tmp_path / "forked")
    with scorer(rig, tmp_path / "again") as two:
        two.loop.step()
        restored = {each.rpartition("/")[2] for each in forked}
        assert {f"{offset:020d}.state" for offset in before.values()} <= restored
    assert len(forked) == 3
    whole = EmbeddedRig(tmp_path / "whole", partitions=2)
    whole.topics = rig.topics
    whole.file.create({topic: len(rig.file.ends(topic)) for topic in _topics(rig)})
    with scorer(whole, tmp_path / "now") as three:
        worked(three, 0, 60)
        three.keeper.keep_now(three.loop.owned)
    assert {name: body for name, body in kept(tmp_path / "now").items() if "shared" not in name} == {
        name: body for name, body in forked.items() if "shared" not in name
    }  # fmt: skip


def _topics(rig: EmbeddedRig) -> tuple[str, ...]:
    names = rig.topics
    return (
        names.transactions, names.decisions, names.alerts, names.shared_state, names.dead_letters, names.labels,
    )  # fmt: skip


def test_a_full_disk_costs_a_checkpoint_and_no_decision(
    rig: EmbeddedRig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file in the folder's place: as root no permission would refuse it."""
    with scorer(rig, tmp_path / "kept") as one:
        clock = Clock()
        keeper = CheckpointKeeper(one.states, one.shared, one.metrics, clock=clock)
        worked(one, 0, 20)
        shutil.rmtree(tmp_path / "kept", ignore_errors=True)
        (tmp_path / "kept").write_text("in the way")
        clock.at = EVERY_S
        with caplog.at_level(logging.WARNING):
            keeper.committed(one.loop.owned, {})
            keeper.close()
        assert any("no checkpoint was kept" in said for said in caplog.messages)
        assert one.metrics.checkpoints == 0
        worked(one, 20, 90)
        with pytest.raises(DependencyError, match="Checkpoints at"):
            one.keeper.keep_now(one.loop.owned)
        (tmp_path / "kept").unlink()
        clock.at = 2 * EVERY_S
        keeper.committed(one.loop.owned, {})
        keeper.close()
        assert one.metrics.checkpoints == 1
    assert len(decided(rig)) == 90
    assert parity(rig).equal


def test_the_shared_state_is_recovered_with_its_places(rig: EmbeddedRig, tmp_path: Path) -> None:
    with scorer(rig, tmp_path / "kept") as one:
        worked(one, 0, 90)
        rested(one)
        one.keep()
        merged, places = one.shared()
        content = merged.snapshot(places)
    assert places == {each: len(found) for each, found in rig.content(rig.topics.shared_state).items()}
    with scorer(rig, tmp_path / "kept") as two:
        merged, places = two.shared()
        assert merged.snapshot(places) == content
        rested(two)
        assert merged.snapshot(places) == content


def test_who_replayed_keeps_a_writers_very_bytes(rig: EmbeddedRig, tmp_path: Path) -> None:
    """Two owners' checkpoints of one place are both right. What is shared has its entities in the order in which they came."""
    with scorer(rig, tmp_path / "kept") as one:
        worked(one, 0, 50)
        rested(one)
        one.keep()
    with scorer(rig, tmp_path / "other") as two:
        rested(two)
        assert two.metrics.replayed_events == 50
        two.keep()
    first, second = kept(tmp_path / "kept"), kept(tmp_path / "other")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name] and "/shared/" not in name] == []
