"""The stream without a broker, as a person runs it: produce, score, look at the metrics and the ledger, stop, kill, go on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fraud_pipeline.adapters.embedded.stream_file import StreamFile
from fraud_pipeline.adapters.kafka.messages import Message, inbox_message
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.stream.event_log import Output
from fraud_pipeline.cli import run
from fraud_pipeline.domain.transaction import Label
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.event_logs import EmbeddedRig
from fraud_pipeline_tests.scorer_rig import NOW, decided, letters, parity
from fraud_pipeline_tests.service_process import free_port
from fraud_pipeline_tests.serving.home import empty_home

DEADLINE_S = 90.0
TOPICS = Topics()


@pytest.fixture
def stream_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a champion and a small world."""
    empty_home(home)
    for name, value in (("CUSTOMERS", "60"), ("MERCHANTS", "20"), ("DAYS", "5")):
        monkeypatch.setenv(f"FRAUD_{name}", value)
    return home


class ScorerProcess:
    """`python -m streaming.scorer`, as a supervisor starts it."""

    def __init__(self, home: Path) -> None:
        self.log = home / "scorer.log"
        self.port = free_port()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streaming.scorer", "--metrics-port", str(self.port)], stdout=log, stderr=log,
                env={**os.environ, "FRAUD_HOME": str(home)},
            )  # fmt: skip

    def metric(self, name: str) -> float:
        """The sum over a metric's labels; 0 while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0
        found = re.findall(rf"^fraud_scorer_{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)


@contextmanager
def scoring(home: Path) -> Iterator[ScorerProcess]:
    scorer = ScorerProcess(home)
    try:
        yield scorer
    finally:
        scorer.process.kill()
        scorer.process.wait()


def produce(count: int, capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    capsys.readouterr()
    assert run(["produce", "--count", str(count), "--rate", "0", "--no-labels", "--json"]) == 0
    found: dict[str, int] = json.loads(capsys.readouterr().out)
    return found


def in_home(home: Path) -> EmbeddedRig:
    """The home's file, to look into."""
    rig = EmbeddedRig.__new__(EmbeddedRig)
    rig.topics, rig.path, rig.partitions = TOPICS, home / "stream.db", 1
    rig.file = StreamFile(rig.path)
    return rig


def rows(home: Path, query: str) -> list[tuple[object, ...]]:
    with Ledger.open(Settings(home=home).ledger_url) as ledger, ledger.database.reading() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def test_produced_payments_are_decided_and_reach_the_ledger(
    stream_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = produce(400, capsys)
    assert (sent["sent"], sent["delivered"], sent["failed"]) == (400, 400, 0)
    with scoring(stream_home) as scorer:
        scorer.until(lambda: scorer.metric("records_total") >= 400)
        assert scorer.metric("decisions_total") == 400
        assert scorer.metric("lag") == 0
        assert scorer.metric("model_version") == 1
        assert scorer.metric("stage_seconds_count") > 0
        assert run(["score-stream", "--metrics-port", "0", "--log"]) != 0
        assert "a file has one scorer" in capsys.readouterr().err
        assert scorer.end(signal.SIGTERM) == 0
    said = scorer.log.read_text()
    assert "nothing is open" in said
    assert "without waiting any longer" not in said
    assert rows(stream_home, "SELECT writer, count(*), max(sequence) FROM transactions GROUP BY 1") == [
        ("transactions[0]", 400, 399)
    ]
    assert rows(stream_home, "SELECT role, count(*) FROM decisions GROUP BY 1") == [("decided", 400)]
    report = parity(in_home(stream_home))
    assert report.equal, report
    assert report.degraded_decisions == 0


def test_a_killed_scorer_is_followed_by_one_that_decides_the_rest_once(
    stream_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    produce(6_000, capsys)
    with scoring(stream_home) as first:
        first.until(lambda: first.metric("records_total") > 0)
        first.end(signal.SIGKILL)
    produce(500, capsys)
    with scoring(stream_home) as second:
        rig = in_home(stream_home)
        second.until(lambda: rig.file.position("fraud-scorer", TOPICS.transactions, 0) == 6_500)
        assert second.end(signal.SIGINT) == 0
    found = decided(rig)
    assert len(found) == 6_500
    assert all(len(each) == 1 for each in found.values())
    assert rows(stream_home, "SELECT count(*) FROM decisions") == [(6_500,)]
    report = parity(rig)
    assert report.equal, report


def test_labels_of_the_inbox_come_back_in_the_log_once_and_bad_ones_are_dead_letters(
    stream_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    produce(50, capsys)
    rig = in_home(stream_home)
    known = json.loads(rig.content(TOPICS.transactions)[0][7].value or b"")["transaction_id"]
    told = inbox_message(Label(known, True, "chargeback", "bank", NOW))
    bad = Message(b"x", b"{", told.headers)
    rig.file.append([Output.of(TOPICS.labels, 0, each) for each in (told, told, bad)])
    with scoring(stream_home) as scorer:
        scorer.until(lambda: scorer.metric("labels_total") >= 2)
        assert scorer.end(signal.SIGTERM) == 0
    assert letters(rig) == [("not_json", "labels[0]@2")]
    with scoring(stream_home) as scorer:  # whoever comes next relays nothing a second time
        scorer.until(lambda: "are relayed from here on" in scorer.log.read_text().partition("nothing is open")[2])
        assert scorer.end(signal.SIGTERM) == 0
    assert rows(stream_home, "SELECT transaction_id, change, writer, sequence FROM labels ORDER BY sequence") == [
        (known, 1, "transactions[0]", 50),
        (known, 0, "transactions[0]", 51),
    ]  # a repeat is kept, and changes nothing
    assert rig.file.ends(TOPICS.transactions) == [52]


def test_one_home_has_one_log(
    stream_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(10, capsys)
    with monkeypatch.context() as kafka:
        kafka.setenv("FRAUD_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
        for command in (["score-stream", "--log", "--metrics-port", "0"], ["sink", "--metrics-port", "0"]):
            assert run(command) == 2
            assert "Give Kafka's topics another FRAUD_TOPIC_PREFIX" in capsys.readouterr().err
    kept = stream_home / "checkpoints" / "stream" / "transactions"
    kept.mkdir(parents=True)
    (kept / "of-another-log").touch()
    assert run(["score-stream", "--log", "--metrics-port", "0"]) != 0
    assert "they are of another log" in capsys.readouterr().err


def test_commands_of_a_broker_say_that_there_is_none(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sink"]) == 2
    assert "fraud services up kafka" in capsys.readouterr().err
    assert not (home / "stream.db").exists()
