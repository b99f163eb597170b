"""`python -m fraud_pipeline_tests.stack_walk`: the whole stack without Docker, from nothing to a decision that outlives a restart.

Starts `fraud stack up` with an empty home, makes a champion by `fraud run` with the settings that it printed (or takes one from a
backup: `--backup DIR`), scores a payment over REST and one through the log, finds both in the ledger, restarts everything, finds
them again, and takes it down with no process left. Prints one JSON object; exit code 1 where anything is not so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

ROOT: Final = Path(__file__).resolve().parent.parent
FRAUD: Final = [sys.executable, "-m", "fraud_pipeline.cli"]
WAIT_S: Final = 300.0
"""Longest wait for one condition: seconds on a free machine."""
LOOK_S: Final = 0.5
SMALL: Final = {
    "FRAUD_CUSTOMERS": "300", "FRAUD_DAYS": "60", "FRAUD_FRAUD_RATE": "0.02", "FRAUD_MIN_PERIOD_FRAUDS": "20",
}  # fmt: skip
"""A world that is simulated and learned in half a minute."""


class Walk:
    """One walk in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "FRAUD_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        self.settings: dict[str, str] = {}
        self.services: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}

    def fraud(self, *arguments: str, on_stack: bool = False, **more: str) -> dict[str, Any]:
        """A command with --json; what it prints."""
        environment = {**self.environment, **(self.settings if on_stack else {}), **more}
        line = [*FRAUD, *arguments, "--json"]
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(
                f"{' '.join(arguments)} ended with {done.returncode}: {(done.stdout + done.stderr)[-4_000:]}"
            )
        return dict(json.loads(done.stdout))

    def restored(self, backup: str) -> None:
        """A champion from a backup, before anything runs that would write to the ledger."""
        self.settings = self.fraud("stack", "up", "--only", "mlflow")["settings"]
        self.timed("restore", lambda: self.fraud("restore", backup, on_stack=True))

    def up(self) -> None:
        found = self.timed("up", lambda: self.fraud("stack", "up"))
        self.settings = found["settings"]
        self.services = {one["service"]: one for one in found["services"]}
        ill = [
            name
            for name, one in self.services.items()
            if one["state"] not in ("healthy", "done") and name != "producer"
        ]
        assert not ill, f"not healthy: {ill}"

    def down(self) -> None:
        pids = [one["pid"] for one in self.services.values() if one["pid"]]
        family = {child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)}
        self.timed("down", lambda: self.fraud("stack", "down"))
        left = [pid for pid in {*pids, *family} if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
        assert not left, f"processes left: {left}"

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        try:
            return work()
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 1)

    def rest(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
        """Status and JSON of a request to the service."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{self.services['service']['address']}{path}", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status), json.loads(answer.read())
        except urllib.error.HTTPError as err:
            return err.code, json.loads(err.read() or b"null")

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        """What the condition gives once it gives something."""
        deadline = time.monotonic() + WAIT_S
        while not (found := condition()):
            assert time.monotonic() < deadline, f"waited {WAIT_S:g} s for {what}"
            time.sleep(LOOK_S)
        return found

    def stored(self, transaction_id: str) -> Any:
        """The decision in the ledger, as the service reads it there."""
        status, answer = self.rest(f"/score/{transaction_id}")
        return answer if status == 200 else None


def walk(home: Path, backup: str | None) -> dict[str, Any]:
    """All of it; AssertionError where something is not as it must be."""
    one = Walk(home)
    if backup is not None:
        one.restored(backup)
    one.up()
    try:
        status, answer = one.rest("/health")
        if backup is None:
            assert status == 503, f"a fresh stack says that it cannot decide, not {status}"
            assert answer["problems"] == ["There is no champion yet. Train and promote one: `fraud run`."]
            made = one.timed("run", lambda: one.fraud("run", on_stack=True, **SMALL))
            assert made["promoted"], made["reason"]
        one.until("the service's champion", lambda: one.rest("/model")[0] == 200)
        payment = {
            "transaction_id": "walk-rest", "event_time": datetime.now(UTC).isoformat(), "customer_id": "walker",
            "merchant_id": "shop", "amount": 12.5, "currency": "USD", "channel": "online",
        }  # fmt: skip
        status, decision = one.until(
            "a decision over REST", lambda: (found := one.rest("/score", payment))[0] == 200 and found
        )
        one.until("it in the ledger", lambda: one.stored("walk-rest"))
        produced = one.fraud(
            "produce", "--count", "50", "--rate", "100", "--no-labels", "--id-prefix", "walk-", on_stack=True
        )
        ledger = one.until(
            "50 decisions of the stream in the ledger", lambda: _decided(one.settings["FRAUD_LEDGER_URL"], 50)
        )
        before = one.stored("walk-rest")
        assert before["decision"] == decision["decision"]
    except BaseException:
        one.fraud("stack", "down")
        raise
    one.down()
    one.up()
    try:
        one.until("the service's champion after a restart", lambda: one.rest("/model")[0] == 200)
        after = one.until("the decision after a restart", lambda: one.stored("walk-rest"))
        assert after == before, (before, after)
        again = one.until(
            "the same payment once more", lambda: (found := one.rest("/score", payment))[0] == 200 and found
        )[1]
        assert again == decision, "a repeat is answered with the stored decision"
        assert _decided(one.settings["FRAUD_LEDGER_URL"], ledger) == ledger, "nothing lost, nothing twice"
    finally:
        one.down()
    return {"healthy": sorted(one.services), "produced": produced, "stream_decisions": ledger, "seconds": one.seconds}


def _decided(address: str, least: int) -> int:
    """How many payments of the producer are decided, once there are so many; else 0."""
    import psycopg

    with psycopg.connect(address.replace("+psycopg", "")) as connection:
        row = connection.execute(
            "SELECT count(*) FROM decisions WHERE transaction_id LIKE 'walk-%' AND transaction_id <> 'walk-rest'"
        ).fetchone()
    found = int(row[0]) if row else 0
    return found if found >= least else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="fraud_pipeline_tests.stack_walk", description=__doc__)
    parser.add_argument("--backup", help="take the champion from this backup, not from a training")
    parser.add_argument("--keep", action="store_true", help="leave the home with its logs")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="fraud-stack-"))
    home.chmod(0o755)  # as root, PostgreSQL is somebody else, who must get to its data
    try:
        sys.stdout.write(json.dumps(walk(home, options.backup)) + "\n")
    except AssertionError as err:
        sys.stderr.write(f"not so: {err}\nlogs: {home}/stack\n")
        options.keep = True
        return 1
    finally:
        if not options.keep:
            shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
