"""Servers of our own: started, held, killed, taken over by their folder, and clear about what went wrong."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
import sqlalchemy as sa

from fraud_pipeline.adapters.local_services.catalogue import KINDS, servers_of
from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.ports import FREE_PORTS, HOST, accepts, free_port
from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline.adapters.local_services.process_file import ProcessFile
from fraud_pipeline.adapters.local_services.valkey_server import ValkeyServer
from fraud_pipeline.errors import Busy, DependencyError, NotFound
from fraud_pipeline_tests.servers import server_folder, server_of_my_own

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """The quickest of the servers, for what all have in common."""
    with server_of_my_own(ValkeyServer) as started:
        yield started


def client(server: ValkeyServer, timeout_s: float = DEADLINE_S) -> redis.Redis:
    return redis.Redis.from_url(server.address, socket_timeout=timeout_s, socket_connect_timeout=DEADLINE_S)


def test_the_same_folder_is_the_same_server_on_the_same_port_with_its_data(server: ValkeyServer) -> None:
    with client(server) as before:
        before.set("kept", "yes")
    port, pid = server.port, server.pid
    server.stop()
    assert (server.pid, server.answers) == (None, False)
    again = ValkeyServer(server.folder)
    again.start()
    try:
        assert again.port == port
        assert again.pid not in {None, pid}
        with client(again) as after:
            assert after.get("kept") == b"yes"
    finally:
        again.kill()


def test_a_start_of_what_runs_and_a_stop_of_what_does_not_do_nothing(server: ValkeyServer) -> None:
    pid = server.pid
    server.start()
    ValkeyServer(server.folder).start()
    assert server.pid == pid
    server.stop()
    server.stop()
    server.kill()
    server.pause()
    assert server.pid is None


def test_another_object_takes_the_server_over_by_its_folder(server: ValkeyServer) -> None:
    other = ValkeyServer(server.folder)
    assert (other.pid, other.address, other.answers) == (server.pid, server.address, True)
    other.stop()
    assert not server.is_running
    assert not accepts(server.port)


def test_a_held_server_accepts_and_does_not_answer(server: ValkeyServer) -> None:
    server.pause()
    with client(server, 0.2) as held:
        assert server.answers, "the kernel accepts for it"
        with pytest.raises(redis.TimeoutError):
            held.ping()
        server.resume()
        until(lambda: bool(held.ping()))


def test_a_held_server_can_be_stopped(server: ValkeyServer) -> None:
    server.pause()
    server.stop()
    assert server.pid is None


def test_a_killed_server_starts_again_on_its_port(server: ValkeyServer) -> None:
    port, pid = server.port, server.pid
    assert pid is not None
    server.kill()
    assert not psutil.pid_exists(pid)
    server.start()
    assert server.port == port


def test_a_server_that_died_by_itself_is_not_running(server: ValkeyServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not server.is_running)
    server.start()
    assert server.answers


def test_a_server_that_runs_is_not_moved_to_another_port(server: ValkeyServer) -> None:
    with pytest.raises(Busy, match=rf"runs on port {server.port}, not on 1234.*Stop it first"):
        ValkeyServer(server.folder, 1234).start()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DependencyError, match=rf"Valkey cannot listen on 127.0.0.1:{port}: something else does"):
            ValkeyServer(tmp_path / "redis", port).start()


def test_a_server_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    class NeverReady(ValkeyServer):
        start_s = 0.3

        def _is_ready(self) -> bool:
            return False

    server = NeverReady(tmp_path / "redis", ends_with_parent=True)
    with pytest.raises(DependencyError, match=r"Valkey was not ready on 127.0.0.1:\d+: waited 0.3 s"):
        server.start()
    assert server.pid is None


def test_a_missing_package_says_how_to_install_it(tmp_path: Path) -> None:
    class NotInstalled(ValkeyServer):
        package = "no_such_wheel"

    with pytest.raises(DependencyError, match=r"no_such_wheel is not installed.*fraud-pipeline\[services\]"):
        NotInstalled(tmp_path / "redis").start()
    assert not (tmp_path / "redis").exists()


def test_a_number_that_another_process_has_now_is_not_ours(tmp_path: Path) -> None:
    file = ProcessFile(tmp_path)
    file.remember(os.getpid(), 1234)
    process = file.process()
    assert process is not None
    assert process.pid == os.getpid()
    state = (tmp_path / "server.json").read_text()
    (tmp_path / "server.json").write_text(state.replace(str(process.create_time()), "12.5"))
    assert file.process() is None
    assert file.port == 1234


def test_a_server_for_tests_ends_with_the_process_that_started_it() -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from fraud_pipeline.adapters.local_services.valkey_server import ValkeyServer\n"
        "server = ValkeyServer(Path(sys.argv[1]), ends_with_parent=True)\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "os.abort()\n"
    )
    with server_folder() as folder:
        answer = subprocess.run(
            [sys.executable, "-c", program, str(folder)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=60,
        )
        assert answer.returncode == -signal.SIGABRT, answer.stderr
        until(lambda: not psutil.pid_exists(int(answer.stdout)))


def test_free_ports_are_not_those_of_outgoing_connections() -> None:
    ports = {free_port() for _ in range(20)}
    assert all(port in FREE_PORTS for port in ports)
    assert not any(accepts(port) for port in ports)


def test_the_servers_of_a_home_are_named(tmp_path: Path) -> None:
    assert [server.name for server in servers_of(tmp_path)] == list(KINDS) == ["kafka", "postgres", "redis"]
    (one,) = servers_of(tmp_path, ["redis", "redis"], port=4242)
    assert (one.folder, one.port) == (tmp_path / "services" / "redis", 4242)
    with pytest.raises(NotFound, match=r"no service 'nats'\. There are: kafka, postgres, redis"):
        servers_of(tmp_path, ["nats"])


def test_postgresql_keeps_what_was_committed_through_a_kill_and_a_stop() -> None:
    with server_of_my_own(PostgresServer) as server:
        engine = sa.create_engine(server.address, poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE kept (number INTEGER)")
            connection.exec_driver_sql("INSERT INTO kept VALUES (7)")
        with engine.connect():  # a session that stands is ended, not waited for
            server.stop()
        server.start()
        server.kill()
        with pytest.raises(sa.exc.OperationalError), engine.connect():
            pass
        server.start()
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT number FROM kept").scalar_one() == 7


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as someone else")
def test_postgresql_as_root_runs_from_an_environment_that_others_may_not_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    found = importlib.util.find_spec(PostgresServer.package)
    assert found is not None
    assert found.origin is not None
    installed, wheel = Path(found.origin).parent, closed / PostgresServer.package
    for folder in (installed, installed.with_suffix(".libs")):
        shutil.copytree(folder, closed / folder.name, symlinks=True)
    monkeypatch.syspath_prepend(closed)
    with server_of_my_own(PostgresServer) as postgres:
        assert str(wheel) in str(importlib.util.find_spec(PostgresServer.package))
        assert psutil.Process(postgres.pid).exe().startswith(str(postgres.folder))
        engine = sa.create_engine(postgres.address)
        with engine.connect() as connection:
            assert connection.execute(sa.text("SELECT 1")).scalar_one() == 1
        engine.dispose()
        postgres.stop()
        postgres.start()
        assert postgres.answers


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as someone else")
def test_postgresql_as_root_names_the_folder_that_keeps_it_out(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(
        DependencyError, match=r"does not run as root, and the account 'nobody' cannot enter"
    ) as refused:
        PostgresServer(closed / "postgres").start()
    assert "ordinary user" in refused.value.remedy
    assert closed.stat().st_mode & 0o777 == 0o700, "nothing is opened behind anyone's back"


def test_kafka_keeps_its_topics_and_records_through_a_kill_and_a_stop() -> None:
    from confluent_kafka import Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

    with server_of_my_own(KafkaServer) as server:
        admin = AdminClient({"bootstrap.servers": server.address})
        admin.create_topics([NewTopic("kept", 3)])["kept"].result(30)
        for restart in (server.kill, server.stop):
            producer = Producer({"bootstrap.servers": server.address})
            producer.produce("kept", b"one", partition=1)
            assert producer.flush(30) == 0
            restart()
            server.start()
        consumer = Consumer({"bootstrap.servers": server.address, "group.id": "any"})
        try:
            assert consumer.get_watermark_offsets(TopicPartition("kept", 1), timeout=30) == (0, 2)
        finally:
            consumer.close()


def test_kafka_that_cannot_start_says_what_it_said_and_no_stack() -> None:
    with server_folder() as folder:
        server = KafkaServer(folder, ends_with_parent=True, settings={"num.io.threads": "-1"})
        with pytest.raises(DependencyError, match=r"num\.io\.threads") as failed:
            server.start()
        assert "\n\tat " not in failed.value.message
        assert server.pid is None
