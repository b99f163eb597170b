"""The log in one file: whole appends, offsets without gaps, times that never go back, and what is said where it cannot be used."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from fraud_pipeline.adapters.embedded.appending import APPEND, EmbeddedProducer
from fraud_pipeline.adapters.embedded.embedded_log import EmbeddedLog
from fraud_pipeline.adapters.embedded.stream_file import StreamFile, encoded_headers, read_headers
from fraud_pipeline.adapters.kafka.partitions import partition_of
from fraud_pipeline.adapters.stream.event_log import Output
from fraud_pipeline.adapters.stream.process_lock import ProcessLock
from fraud_pipeline.errors import DependencyError, IntegrityError, NotFound


def made(path: Path, partitions: int = 2) -> StreamFile:
    file = StreamFile(path)
    file.create({"a": partitions, "b": 1})
    return file


def some(topic: str, count: int, partition: int | None = 0, size: int = 1) -> list[Output]:
    return [Output(topic, partition, b"key-%d" % number, b"x" * size, []) for number in range(count)]


def test_a_key_goes_where_a_brokers_client_would_put_it(tmp_path: Path) -> None:
    file = made(tmp_path / "f.db", 5)
    places = file.append(some("a", 40, partition=None))
    assert [place.partition for place in places] == [partition_of(b"key-%d" % number, 5) for number in range(40)]


def test_topics_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    file = made(tmp_path / "f.db", 2)
    file.append(some("a", 3))
    file.create({"a": 9, "c": 1})
    assert (file.partition_count("a"), file.partition_count("c")) == (2, 1)
    assert file.ends("a") == [3, 0]


def test_an_append_that_fails_leaves_nothing(tmp_path: Path) -> None:
    file = made(tmp_path / "f.db")
    with pytest.raises(NotFound, match="gone"):
        file.append([*some("a", 3), *some("gone", 1)], reader="r", positions={("a", 0): 3})
    assert file.ends("a") == [0, 0]
    assert file.position("r", "a", 0) is None


def test_times_never_go_back_though_the_clock_does(tmp_path: Path) -> None:
    clock = iter([100.0, 100.5, 90.0, 101.0])
    file = StreamFile(tmp_path / "f.db", now=lambda: next(clock))
    file.create({"a": 1})
    for _ in range(4):
        file.append(some("a", 1))
    times = [each.received_us for each in file.read("a", 0, 0, 10)]
    assert times == [100_000_000, 100_500_000, 100_500_000, 101_000_000]


def test_appends_of_several_at_once_leave_no_gap(tmp_path: Path) -> None:
    made(tmp_path / "f.db").close()

    def append() -> None:
        with StreamFile(tmp_path / "f.db") as file:
            for _ in range(30):
                file.append(some("a", 3))

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with StreamFile(tmp_path / "f.db") as file:
        assert [each.offset for each in file.read("a", 0, 0, 1_000)] == list(range(360))
        assert file.ends("a") == [360, 0]


@pytest.mark.parametrize(
    "headers", [None, [], [("a", b"")], [("a", None), ("a", b"\x00\xff\xfe")], [("ü", "ü".encode())]]
)
def test_headers_come_back_as_they_were(headers: list[tuple[str, bytes | None]] | None) -> None:
    assert read_headers(encoded_headers(headers)) == headers


def test_a_full_disk_stops_the_scorer_with_nothing_half_done(tmp_path: Path) -> None:
    file = made(tmp_path / "f.db")
    log = EmbeddedLog(tmp_path / "f.db", topic="a", shared_topic="b", group="g")
    log.start()
    log.commit(some("b", 1), {0: 1})
    connection = log._written._open()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")  # as a disk that has this much room
    with pytest.raises(DependencyError, match="full"):
        log.commit(some("b", 50, size=5_000), {0: 2})
    assert (file.ends("b"), log.position(0)) == ([1], 1)
    connection.execute("PRAGMA max_page_count = 1000000")
    log.commit(some("b", 50, size=5_000), {0: 2})
    assert (file.ends("b"), log.position(0)) == ([51], 2)
    log.close()


def test_what_is_no_log_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "f.db").write_bytes(b"this is no database, and long enough to be read as one" * 100)
    with pytest.raises(IntegrityError, match=r"f\.db is damaged"):
        made(tmp_path / "f.db")


def test_a_producer_reports_every_message_once(tmp_path: Path) -> None:
    producer, reports = EmbeddedProducer(made(tmp_path / "f.db")), list[tuple[object, int]]()
    for number in range(APPEND + 5):
        producer.produce(
            "a", b"%d" % number, b"key", headers=[], on_delivery=lambda err, message: reports.append((err, message.offset()))
        )  # fmt: skip
    assert (len(reports), len(producer)) == (APPEND, 5)
    assert producer.flush(1.0) == 0
    assert len(producer) == 0
    assert reports == [(None, offset) for offset in range(APPEND + 5)]


def test_what_is_given_up_is_reported_as_failed(tmp_path: Path) -> None:
    file, failed = made(tmp_path / "f.db"), list[object]()
    producer = EmbeddedProducer(file)
    producer.produce("a", b"1", b"key", headers=[], on_delivery=lambda err, _: failed.append(err))
    producer.purge()
    producer.flush(1.0)
    assert failed == ["given up"]
    assert sum(file.ends("a")) == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_hold_its_parents_lock(tmp_path: Path) -> None:
    """A checkpoint's writer may outlive a killed scorer; its successor must not wait for it, nor take another name."""
    lock = ProcessLock(tmp_path / "lock")
    assert lock.take()
    (stay, end), (hear, say) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.write(say, b"x")
        os.read(stay, 1)  # it is there until the test is over
        os._exit(0)
    try:
        os.read(hear, 1)
        successor = ProcessLock(tmp_path / "lock")
        assert not successor.take()
        lock.release()
        assert successor.take()
        successor.release()
    finally:
        os.write(end, b"x")
        os.waitpid(child, 0)
        for each in (stay, end, hear, say):
            os.close(each)
