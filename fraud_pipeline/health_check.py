"""Whether a process of the stack answers, for the health checks of docker-compose.yml: exit code 0, or 1 with the reason.

`python -m fraud_pipeline.health_check http URL | grpc HOST:PORT | daemon`. It runs every few seconds in every container, so it
starts with the standard library alone; what a check needs beyond that is loaded by that check.
"""

from __future__ import annotations

import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Final

TIMEOUT_S: Final = 3.0
"""On loopback an answer takes milliseconds; a check that takes longer than compose's own limit would leave a process behind."""
STALE_S: Final = 120.0
"""Dagster's daemons write a heartbeat every 30 s; under load one is late, three are not."""
STORAGE: Final = "FRAUD_DAGSTER_STORAGE_URL"
_SERVING: Final = b"\x08\x01"
"""grpc.health.v1's answer that says SERVING, as it goes over the wire."""
_ASK_DAGSTER: Final = b"\n\x0aDagsterApi"
"""Its request, for the service of that name: field 1, length, text."""


class Unhealthy(Exception):
    """Why."""


def check_http(url: str) -> None:
    """Any answer below 400."""
    if not url.startswith(("http://", "https://")):
        raise Unhealthy(f"{url} is no http address")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - http, checked above
            answer.read(1)
    except urllib.error.HTTPError as err:
        raise Unhealthy(f"{url} answers {err.code}") from err
    except (OSError, ValueError) as err:
        raise Unhealthy(f"{url} does not answer: {err}") from err


def check_grpc(address: str) -> None:
    """Dagster's code server says that it serves."""
    import grpc  # type: ignore[import-untyped]

    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary("/grpc.health.v1.Health/Check", lambda x: x, lambda x: x)
        try:
            answer = ask(_ASK_DAGSTER, timeout=TIMEOUT_S)
        except grpc.RpcError as err:
            raise Unhealthy(f"{address} does not answer: {err.code().name}") from err
    if answer != _SERVING:
        raise Unhealthy(f"{address} answers, but does not serve")


def check_daemon(storage_url: str) -> None:
    """The daemon wrote a heartbeat lately. Dagster's own check imports Dagster, 2 s of a core each time."""
    import psycopg

    address = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", storage_url)
    try:
        with psycopg.connect(address, connect_timeout=int(TIMEOUT_S)) as connection:
            rows = connection.execute(
                "SELECT daemon_type, extract(epoch FROM now() AT TIME ZONE 'UTC' - timestamp) FROM daemon_heartbeats"
            ).fetchall()
    except psycopg.Error as err:
        raise Unhealthy(f"Dagster's storage does not answer: {str(err).strip().splitlines()[0]}") from err
    if not rows:
        raise Unhealthy("no daemon has written a heartbeat yet")
    kind, age = min(rows, key=lambda row: row[1])
    if age > STALE_S:
        raise Unhealthy(f"the newest heartbeat, of {kind}, is {float(age):.0f} s old")


CHECKS: Final[dict[str, Callable[[str], None]]] = {"http": check_http, "grpc": check_grpc, "daemon": check_daemon}


def main(arguments: Sequence[str]) -> int:
    """The exit code of one check."""
    kind, *rest = arguments or ("",)
    if kind == "daemon" and not rest and os.environ.get(STORAGE):
        rest = [os.environ[STORAGE]]
    if kind not in CHECKS or len(rest) != 1:
        sys.stderr.write(f"health_check: http URL | grpc HOST:PORT | daemon (with {STORAGE})\n")
        return 2
    try:
        CHECKS[kind](rest[0])
    except Unhealthy as err:
        sys.stderr.write(f"{err}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
