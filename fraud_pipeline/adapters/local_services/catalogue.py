"""The servers of a home: `.fraud/services/NAME`, by the names that people use."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fraud_pipeline.adapters.local_services.kafka_server import KafkaServer
from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline.adapters.local_services.server import LocalServer
from fraud_pipeline.adapters.local_services.valkey_server import ValkeyServer
from fraud_pipeline.errors import NotFound

KINDS: Final[dict[str, type[LocalServer]]] = {kind.name: kind for kind in (KafkaServer, PostgresServer, ValkeyServer)}


def servers_of(home: Path, names: Iterable[str] = (), *, port: int = 0) -> list[LocalServer]:
    """The named servers of a home, all of them where none is named; a port is for the one that is named.

    Raises:
        NotFound: there is no server of that name.
    """
    wanted = list(dict.fromkeys(names)) or list(KINDS)
    for name in wanted:
        if name not in KINDS:
            raise NotFound(f"There is no service {name!r}.", remedy=f"There are: {', '.join(KINDS)}.")
    return [KINDS[name](home / "services" / name, port) for name in wanted]
