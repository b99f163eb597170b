"""The faults: each does its damage, mends what it broke, and returns; that decisions flow again is for who called it to see."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from fraud_pipeline.adapters.kafka.connection import consumer_config
from fraud_pipeline.adapters.kafka.messages import read_decision
from fraud_pipeline.stream_runtime import GROUP
from fraud_pipeline_tests.faults.feed import QUIET
from fraud_pipeline_tests.faults.members import Member, until
from fraud_pipeline_tests.faults.rig import PREFIX, Rig

Fault = Callable[[Rig], None]
SMALL_FILE: Final = 512
"""Bytes; a checkpoint is larger. How a full disk looks to one process."""
SOON_S: Final = 40.0


def scorer_killed(rig: Rig) -> None:
    """kill -9, and a supervisor that starts it again."""
    rig.supervisor.kill(rig.any_scorer())


def scorer_killed_for_good(rig: Rig) -> None:
    """kill -9 of one that comes back only after others have taken its partitions, or after a while where there are none."""
    member = rig.any_scorer()
    member.wanted = False
    member.kill()
    _wait_for_others(rig, member)
    member.start()


def scorer_held(rig: Rig) -> None:
    """SIGSTOP past the session's timeout, and SIGCONT: a zombie, which must write nothing."""
    member = rig.any_scorer()
    member.signal(signal.SIGSTOP)
    try:
        until(lambda: not _is_in_group(rig, member), f"the group goes on without {member.name}", patience_s=SOON_S)
        _wait_for_others(rig, member)
    finally:
        member.signal(signal.SIGCONT)


def scorer_stutters(rig: Rig) -> None:
    """Many short holds, so that some fall into an open transaction."""
    member = rig.any_scorer()
    for _ in range(12):
        member.signal(signal.SIGSTOP)
        ahead = rig.feed.produced["payments"] + 40
        until(lambda ahead=ahead: rig.feed.produced["payments"] > ahead, "more payments")  # type: ignore[misc]
        member.signal(signal.SIGCONT)
        until(lambda ahead=ahead: rig.feed.produced["payments"] > ahead + 5, "a few payments")  # type: ignore[misc]


def scorer_joins(rig: Rig) -> None:
    """One more, or one less where there are enough."""
    if len([each for each in rig.scorers if each.wanted]) >= rig.plan.most_scorers:
        scorer_leaves(rig)
        return
    member = rig.join_scorer()
    until(lambda: member.is_ready, f"the start of {member.name}")


def scorer_leaves(rig: Rig) -> None:
    """SIGTERM; the last one is replaced at once."""
    member = rig.any_scorer()
    rig.leave(member)
    if not any(each.wanted for each in rig.scorers):
        rig.join_scorer()


def broker_killed(rig: Rig) -> None:
    rig.kafka.kill()
    rig.kafka.start()


def broker_restarted(rig: Rig) -> None:
    rig.kafka.stop()
    rig.kafka.start()


def broker_held(rig: Rig) -> None:
    """SIGSTOP: connections stand, nobody answers; for 2 to 12 s by what has piled up."""
    rig.kafka.pause()
    try:
        piled_up = int(rig.plan.rate * rig.random.uniform(2.0, 12.0))
        until(lambda: rig.feed.unconfirmed >= piled_up, "payments that wait for the broker")
    finally:
        rig.kafka.resume()


def valkey_lost(rig: Rig) -> None:
    """kill -9, and it comes back with nothing."""
    rig.valkey.kill()
    shutil.rmtree(rig.valkey.folder / "data", ignore_errors=True)
    rig.valkey.start()


def checkpoints_lost(rig: Rig) -> None:
    """The newest of each writer are gone or damaged, or all are; then a scorer dies."""
    how = rig.random.choice(("newest", "all", "damaged"))
    for folder in {file.parent for file in rig.checkpoints.rglob("*.state")}:
        files = sorted(folder.glob("*.state"))
        for file in files if how == "all" else files[-1:]:
            if how == "damaged":
                file.write_bytes(file.read_bytes()[:-100])
            else:
                file.unlink(missing_ok=True)
    scorer_killed(rig)


def disk_full(rig: Rig) -> None:
    """A scorer cannot write its checkpoints; it leaves like that, and another one takes over from older ones."""
    import psutil

    member = rig.any_scorer()
    pid = member.pid
    if pid is not None:
        psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (SMALL_FILE, SMALL_FILE))
    rig.leave(member)
    member.start()


def postgres_restarted(rig: Rig) -> None:
    rig.postgres.stop()
    rig.postgres.start()


def postgres_killed(rig: Rig) -> None:
    rig.postgres.kill()
    rig.postgres.start()


def sink_killed(rig: Rig) -> None:
    rig.supervisor.kill(rig.random.choice(rig.sinks))


def model_promoted(rig: Rig) -> None:
    """Another champion; every partition's decisions must name it soon."""
    reader = _from_now_on(rig)
    try:
        version = rig.promote()
        seen: set[int] = set()

        def named() -> bool:
            for message in reader.consume(1_000, 0.2):
                if message.error() is None and read_decision(message.value())[0].model_version == version:
                    seen.add(int(message.partition() or 0))
            return len(seen) == rig.plan.partitions

        until(named, f"decisions of version {version} in every partition")
    finally:
        reader.close()


def clock_stepped(rig: Rig) -> None:
    """Event times jump ahead, or back, for some hundred payments, and return."""
    minutes = rig.random.choice((-90, -20, -3, 3, 20, 90))
    rig.feed.step_clock(timedelta(minutes=minutes))
    _more_payments(rig, 300)
    rig.feed.step_clock(timedelta())


def input_repeated(rig: Rig) -> None:
    rig.feed.repeats(200)
    rig.feed.conflicts(20)


def input_reordered(rig: Rig) -> None:
    rig.feed.reordered(200)
    rig.feed.repeats(50)


def input_poisoned(rig: Rig) -> None:
    rig.feed.poison(3)


def input_bursts(rig: Rig) -> None:
    """A backlog."""
    rig.feed.burst(6_000)


def partition_quiet(rig: Rig) -> None:
    """One partition's customers rest, and its minutes end by the clock."""
    rig.feed.quiet(rig.random.randrange(rig.plan.partitions))
    _more_payments(rig, 1_500)
    rig.feed.quiet(None)


FAULTS: Final[dict[str, Fault]] = {
    each.__name__: each
    for each in (
        scorer_killed, scorer_killed_for_good, scorer_held, scorer_stutters, scorer_joins, scorer_leaves, broker_killed,
        broker_restarted, broker_held, valkey_lost, checkpoints_lost, disk_full, postgres_restarted, postgres_killed,
        sink_killed, model_promoted, clock_stepped, input_repeated, input_reordered, input_poisoned, input_bursts,
        partition_quiet,
    )
}  # fmt: skip


def _more_payments(rig: Rig, count: int) -> None:
    wanted = rig.feed.produced["payments"] + count
    until(lambda: rig.feed.produced["payments"] >= wanted, f"{count} more payments")


def _wait_for_others(rig: Rig, member: Member) -> None:
    """Until others have decided what is there by now; where nobody else is, until the group knows that it is gone."""
    if [each for each in rig.ready_scorers() if each is not member]:
        rig.wait_until_decided(f"decisions without {member.name}")
    else:
        _more_payments(rig, 500)


def _is_in_group(rig: Rig, member: Member) -> bool:
    """Whether its partitions are still its own, as the coordinator sees it."""
    admin = AdminClient({"bootstrap.servers": rig.kafka.address}, logger=QUIET)
    group = f"{PREFIX}{GROUP}"
    try:
        described = admin.describe_consumer_groups([group])[group].result(5.0)
    except KafkaException:
        return True
    return any(each.client_id == member.name for each in described.members)


def _from_now_on(rig: Rig) -> Any:
    reader = Consumer(consumer_config(rig.settings, group=f"{PREFIX}watch"), logger=QUIET)
    topic = rig.topics.decisions
    ends = {
        each: reader.get_watermark_offsets(TopicPartition(topic, each), timeout=10.0)[1]
        for each in range(rig.plan.partitions)
    }
    reader.assign([TopicPartition(topic, each, end) for each, end in ends.items()])
    return reader
