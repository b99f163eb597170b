"""The walk through a running stack: history, champion, REST, stream, drift report, retraining, promotion, swap, restart."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fraud_pipeline_tests.stack_test.commands import StackTestFailed, until
from fraud_pipeline_tests.stack_test.stack import Stack

SETTINGS: Final = {
    # A world small enough to train on in a minute, with as many frauds as the gates need.
    "FRAUD_CUSTOMERS": "300",
    "FRAUD_MERCHANTS": "100",
    "FRAUD_DAYS": "75",
    "FRAUD_RATE": "2",
    "FRAUD_FRAUD_RATE": "0.04",
    "FRAUD_ALERT_BUDGET": "0.05",
    "FRAUD_MIN_PERIOD_FRAUDS": "40",
    "FRAUD_MAX_DECISION_MS": "1000",
    # Two champions of a small world differ by chance more than a large one's; whether gates stop a bad one is tested elsewhere.
    "FRAUD_MAX_VALUE_LOSS": "0.5",
}
HELD_BACK_DAYS: Final = 10
"""The first champion knows nothing of the history's last days, so that the second training has something new."""
TRAIN_S: Final = 1800.0
"""A minute where nothing else runs."""
DECIDED_S: Final = 300.0
SWAP_S: Final = 120.0
"""Services look every half second."""
RUN_S: Final = 1800.0
REST_PAYMENTS: Final = 20
STREAM_PAYMENTS: Final = 1_000
LATER_PAYMENTS: Final = 200
LIVE: Final = "writer <> 'history'"
"""Payments of the landed history come into the ledger when a label for them becomes due."""
COMPILED_SINCE: Final = """
cd "$NUMBA_CACHE_DIR" && find . -name '*.nbc' ! -name 'tree_*' |
    while read -r kernel; do [ -e "/opt/kernels/$kernel" ] || echo "$kernel"; done
"""
"""Kernels that a container has and its image has not, but for those of a model's trees, which wait for a model (1 s)."""
LOG_END: Final = """
from confluent_kafka import Consumer, TopicPartition
consumer = Consumer({"bootstrap.servers": "kafka:9092", "group.id": "stack-test"})
partitions = consumer.list_topics("transactions", timeout=30).topics["transactions"].partitions
print(sum(consumer.get_watermark_offsets(TopicPartition("transactions", one), timeout=30)[1] for one in partitions))
consumer.close()
"""
"""The places in the log, all partitions together."""
MOST_COMPILED: Final = 3
"""A kernel called with another kind of array than when it was warmed takes a second, and is no image without kernels (169)."""
ENDED: Final = ("SUCCESS", "FAILURE", "CANCELED")
_LAUNCH: Final = """
mutation Launch($job: String!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "fraud_pipeline", repositoryName: "__repository__", jobName: $job}, runConfigData: {}
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } }
}
"""
_STATUS: Final = "query Status($run: ID!) { runOrError(runId: $run) { __typename ... on Run { status } } }"


class Walk:
    """Each step returns what it has seen, in a line; StackTestFailed where it saw something else."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.rest_ids: list[str] = []
        self.produced = 0
        self._before: dict[str, str] = {}
        self._first_answer: Any = None

    def first_champion(self) -> str:
        """A world is simulated, its days are materialized, a champion is trained; services take it up by themselves."""
        as_of = datetime.now(UTC).date() - timedelta(days=HELD_BACK_DAYS)
        self.stack.fraud("dagster-code", "run", "--as-of", as_of.isoformat(), timeout_s=TRAIN_S)
        days = self.stack.fraud("dagster-code", "status")["datasets"]["transactions"]["days"]
        return f"{days} days, trained as of {as_of}, version {self._served_by_all(1)}"

    def score_over_rest(self) -> str:
        """A gateway with an API key gets decisions of the champion, and the same one again for the same payment."""
        made = self.stack.fraud("service", "keys", "create", "stack-test", "--scope", "admin")
        self.stack.key = made["key"]
        until(lambda: self.stack.rest("GET", "/model"), "the key to be known", timeout_s=SWAP_S, logs_of=("service",))
        for number in range(REST_PAYMENTS):
            answer = self._score(f"stack-test-{number}", number)
            if answer["decision"] not in ("APPROVE", "REVIEW", "BLOCK") or answer["model_version"] != "1":
                raise StackTestFailed(f"a decision that is none: {answer}", logs_of=("service",))
            self._first_answer = self._first_answer or answer
        self._same_answer_again()
        self._in_the_ledger()
        return f"{REST_PAYMENTS} decided, a repeat answered alike, all in the ledger"

    def stream(self) -> str:
        """A producer's payments are each decided once, by the scorer, and kept by the sink."""
        self._produce(STREAM_PAYMENTS)
        compiled = {
            kernel.rpartition("/")[2].partition("-")[0]
            for service in ("service", "scorer")
            for kernel in self.stack.execute(service, "sh", "-c", COMPILED_SINCE).split()
        }
        if len(compiled) > MOST_COMPILED:
            raise StackTestFailed(f"compiled in running containers, though their images should have them: {compiled}")
        alerts = self.stack.number("SELECT count(*) FROM alerts")
        anew = f"{len(compiled)} kernels compiled anew"
        return f"{STREAM_PAYMENTS} payments, {STREAM_PAYMENTS} decisions in the ledger, {alerts} alerts, {anew}"

    def drift_report(self) -> str:
        """Asked for over REST, started by the webserver, queued, run beside the code server; then REST shows it."""
        started = self.stack.rest("POST", "/drift/run")
        self._run_succeeds(started["run_id"])
        status = self.stack.rest("GET", "/drift/status")
        return f"status {status.get('status') or status.get('verdict')}"

    def second_champion(self) -> str:
        """The job that schedule and drift sensor start: train on the newest days, gates, promotion; everyone swaps."""
        launched = self.stack.dagster(_LAUNCH, job="retrain")["launchRun"]
        if launched["__typename"] != "LaunchRunSuccess":
            raise StackTestFailed(f"retrain was not started: {launched}", logs_of=("dagster-webserver", "dagster-code"))
        self._run_succeeds(launched["run"]["runId"])
        if (newest := self._champion()) != 2:
            versions = self.stack.fraud("dagster-code", "models", "list")
            raise StackTestFailed(f"the champion is version {newest}: {json.dumps(versions)[:2000]}")
        served = self._served_by_all(2)
        decided = self._score("stack-test-swapped", 7)["model_version"]
        self._produce(LATER_PAYMENTS)
        by_second = self.stack.number("SELECT count(*) FROM decisions WHERE role = 'decided' AND model_version = '2'")
        if decided != "2" or by_second < LATER_PAYMENTS:
            raise StackTestFailed(
                f"REST decided with {decided}, version 2 decided {by_second} in all", logs_of=("scorer",)
            )
        return f"version {served} is champion, in service and scorer; {by_second} decisions by it"

    def restart(self) -> str:
        """All containers are removed and made anew upon their volumes: nothing is missing, and it goes on."""
        self._before = self._kept()
        self.stack.down()
        if left := self.stack.states():
            raise StackTestFailed(f"`down` left {left}")
        self.stack.up()
        after = self._kept()
        if lost := {
            name: (value, after[name]) for name, value in self._before.items() if int(after[name]) < int(value)
        }:
            raise StackTestFailed(f"before and after the restart: {lost}", logs_of=("postgres", "kafka"))
        self._served_by_all(2)
        until(self._same_answer_again, "the first answer again", timeout_s=SWAP_S, logs_of=("service",))
        self._produce(LATER_PAYMENTS)
        return ", ".join(f"{name} {value}" for name, value in after.items())

    # Within

    def _kept(self) -> dict[str, str]:
        """What a restart may not lose, as far as it is still."""
        transactions, decisions, labels, promotions = self.stack.sql(
            "SELECT (SELECT count(*) FROM transactions), (SELECT count(*) FROM decisions WHERE role = 'decided'), "
            "(SELECT count(*) FROM api_keys), (SELECT count(*) FROM promotions)"
        )[0]
        versions = self.stack.number("SELECT count(*) FROM model_versions", "mlflow")
        runs = self.stack.number("SELECT count(*) FROM runs WHERE status = 'SUCCESS'", "dagster")
        in_log = int(self.stack.execute("scorer", "python", "-c", LOG_END))
        return {
            "payments": transactions, "decisions": decisions, "keys": labels, "promotions": promotions,
            "model versions": str(versions), "Dagster runs": str(runs), "records in the log": str(in_log),
        }  # fmt: skip

    def _score(self, transaction_id: str, number: int) -> Any:
        self.rest_ids.append(transaction_id)
        payment = {
            "transaction_id": transaction_id, "event_time": datetime.now(UTC).isoformat(), "customer_id": f"C{number:07d}",
            "merchant_id": f"M{number:08d}", "amount": f"{10 + 37 * number}.50", "channel": "online", "country": "US",
        }  # fmt: skip
        if number == 0:
            self._first_payment = payment
        return until(
            lambda: self.stack.rest("POST", "/score", payment), "a decision", timeout_s=SWAP_S, logs_of=("service",)
        )

    def _same_answer_again(self) -> bool:
        again = self.stack.rest("POST", "/score", self._first_payment)
        if again != self._first_answer:
            raise StackTestFailed(
                f"the same payment again: {again}, and before {self._first_answer}", logs_of=("service",)
            )
        return True

    def _produce(self, count: int) -> None:
        produced = self.stack.fraud("scorer", "produce", "--count", str(count), "--rate", "200", timeout_s=DECIDED_S)
        if produced["failed"] or produced["payments"]["delivered"] != count:
            raise StackTestFailed(f"the producer says {produced}")
        self.produced += count
        self._in_the_ledger()

    def _in_the_ledger(self) -> None:
        """Every payment there is has its one decision, and no other payment is there."""
        due = self.produced + len(set(self.rest_ids))

        def all_there() -> bool:
            payments = self.stack.number(f"SELECT count(*) FROM transactions WHERE {LIVE}")
            decided = self.stack.number(
                f"SELECT count(*) FROM transactions JOIN decisions USING (transaction_id) WHERE {LIVE} AND role = 'decided'"
            )
            if payments > due or decided > due:
                raise StackTestFailed(f"{payments} payments and {decided} decisions, of {due} that were sent")
            return payments == decided == due

        until(
            all_there,
            f"{due} payments with their decisions in the ledger",
            timeout_s=DECIDED_S,
            logs_of=("scorer", "sink"),
        )

    def _run_succeeds(self, run_id: str) -> None:
        def ended() -> str | None:
            status = self.stack.dagster(_STATUS, run=run_id)["runOrError"].get("status")
            return status if status in ENDED else None

        status = until(ended, f"run {run_id}", timeout_s=RUN_S, logs_of=("dagster-daemon", "dagster-code"))
        if status != "SUCCESS":
            raise StackTestFailed(
                f"run {run_id} ended as {status}: {self._failures(run_id)}", logs_of=("dagster-code",)
            )

    def _failures(self, run_id: str) -> str:
        rows = self.stack.sql(
            f"SELECT event FROM event_logs WHERE run_id = '{run_id}' AND dagster_event_type IN ('STEP_FAILURE', 'PIPELINE_FAILURE')",
            "dagster",
        )
        return "; ".join(row[0][:1500] for row in rows) or "no failed step"

    def _champion(self) -> int:
        return self.stack.number("SELECT version FROM promotions ORDER BY promotion_id DESC LIMIT 1")

    def _served_by_all(self, version: int) -> int:
        """Wait until service and scorer decide with it."""

        def swapped() -> bool:
            metrics = self.stack.metrics("scorer", 9105)
            scorer = re.search(r'fraud_scorer_model_version\{model_version="(\d+)"\} 1', metrics)
            ready = _answers(self.stack, "/readyz")
            service = self.stack.rest("GET", "/model")["model_version"] if self.stack.key else str(version)
            return ready and scorer is not None and scorer[1] == service == str(version)

        until(swapped, f"version {version} in service and scorer", timeout_s=SWAP_S, logs_of=("service", "scorer"))
        return version


def _answers(stack: Stack, path: str) -> bool:
    try:
        stack.rest("GET", path)
    except StackTestFailed:
        return False
    return True
