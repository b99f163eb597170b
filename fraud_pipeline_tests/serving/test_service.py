"""The service as its callers meet it, over HTTP: the routes, a promotion under load, the ledger away and back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.local_services.postgres_server import PostgresServer
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.bundles import write_bundle
from fraud_pipeline_tests.servers import server_of_my_own
from fraud_pipeline_tests.service_process import ServiceProcess, service_running
from fraud_pipeline_tests.serving.home import append_promotion, promote_bundle, serving_home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DEADLINE_S = 20.0


class Gateway:
    """A payment gateway: sends payments of now."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=30)
        self.sent = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.client.close()

    def payment(self, **changes: Any) -> dict[str, Any]:
        self.sent += 1
        now = datetime.now(UTC).isoformat()
        plain = {
            "transaction_id": f"p{self.sent}",
            "event_time": now,
            "customer_id": "c1",
            "merchant_id": "m1",
            "amount": 12.5,
        }
        return {**plain, **changes}

    def score(self, **changes: Any) -> httpx.Response:
        return self.client.post("/score", json=self.payment(**changes))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return serving_home(tmp_path_factory.mktemp("served") / "home")


@pytest.fixture(scope="module")
def service(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    log = tmp_path_factory.mktemp("log") / "service.log"
    with service_running(log, environment={"FRAUD_HOME": str(settings.home), "FRAUD_DAGSTER_URL": ""}) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(service: ServiceProcess) -> Iterator[Gateway]:
    with Gateway(service.url) as opened:
        yield opened


def test_the_same_payment_gets_the_same_bytes_and_another_one_is_refused(gateway: Gateway) -> None:
    payment = gateway.payment()
    first, again = gateway.client.post("/score", json=payment), gateway.client.post("/score", json=payment)
    assert (first.status_code, again.content) == (200, first.content)
    assert gateway.client.get(f"/score/{payment['transaction_id']}").content == first.content
    assert gateway.client.post("/score", json={"transaction_id": payment["transaction_id"]}).content == first.content
    other = gateway.client.post("/score", json={**payment, "amount": 12.51})
    assert other.status_code == 409
    assert [error["field"] for error in other.json()["errors"]] == ["amount"]


def test_a_payment_of_the_history_is_decided_by_its_id_from_the_features_of_its_time(
    gateway: Gateway, settings: Settings
) -> None:
    from fraud_pipeline.adapters.source_store import SourceStore

    source = SourceStore(settings.home)
    row = source.read_day("transactions", source.days("transactions")[-1]).to_pylist()[0]
    answer = gateway.client.post("/score", json={"transaction_id": row["transaction_id"]})
    assert answer.status_code == 200
    assert answer.json()["transaction_id"] == row["transaction_id"]
    assert gateway.client.post("/score", json={"transaction_id": row["transaction_id"]}).content == answer.content
    assert gateway.client.get(f"/transactions/{row['transaction_id']}").json()["writer"] == "history"
    assert gateway.client.post("/score", json={"transaction_id": "nobody-knows"}).status_code == 404


def test_a_batch_answers_item_by_item(gateway: Gateway) -> None:
    good, late = gateway.payment(), gateway.payment()
    late["event_time"] = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    bad = {**gateway.payment(), "amount": -1, "country": "XX"}
    answer = gateway.client.post(
        "/score_batch", json={"transactions": [good, bad, late, good, {**good, "amount": 1}, 7]}
    )
    results = answer.json()["results"]
    assert [next(iter(result)) for result in results] == ["decision", "error", "decision", "decision", "error", "error"]
    assert results[0] == results[3]
    assert {error["field"] for error in results[1]["error"]["errors"]} == {"amount", "country"}
    assert (results[4]["error"]["status"], results[5]["error"]["status"]) == (409, 422)


def test_labels_count_once_and_may_come_before_their_payment(gateway: Gateway) -> None:
    payment = gateway.payment()
    label = {"transaction_id": payment["transaction_id"], "is_fraud": True, "author": "ann"}
    early = gateway.client.post("/labels", json=label).json()
    assert (early["recorded"], early["waiting"], early["changes"]) == (1, [payment["transaction_id"]], [])
    assert gateway.client.post("/score", json=payment).status_code == 200
    corrected = gateway.client.post("/labels", json={"labels": [{**label, "is_fraud": False}, {"is_fraud": 1}]}).json()
    assert corrected["changes"] == [{"transaction_id": payment["transaction_id"], "change": -1}]
    assert [error["index"] for error in corrected["errors"]] == [1]


def test_an_explanation_adds_up_and_can_be_seen(gateway: Gateway) -> None:
    decided = gateway.score(amount=4_000, country="FR").json()
    found = gateway.client.get(f"/explain/{decided['transaction_id']}").json()
    total = found["base_value"] + sum(each["contribution"] for each in found["contributions"]) + found["rounding"]
    assert total == pytest.approx(decided["raw_score"], abs=1e-6)
    picture = gateway.client.get(f"/explain/{decided['transaction_id']}", headers={"Accept": "image/png"})
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")


def test_it_says_what_it_is_and_how_it_does(gateway: Gateway) -> None:
    gateway.score()
    health, model = gateway.client.get("/health").json(), gateway.client.get("/model").json()
    assert health["status"] == "ok"
    assert health["dependencies"]["ledger"]["latency_ms"] >= 0
    assert model["thresholds"].keys() == {"review", "block", "of"}
    metrics = gateway.client.get("/metrics").text
    assert "fraud_decisions_total{" in metrics
    assert "fraud_score_latency_seconds_bucket{" in metrics
    assert gateway.client.get("/customers/c1/recent?limit=3").json()["customer_id"] == "c1"


def test_a_promotion_under_load_answers_soon_and_fails_nobody(
    gateway: Gateway, settings: Settings, tmp_path: Path
) -> None:
    versions: list[tuple[float, str]] = []
    failed: Counter[int] = Counter()
    stop = threading.Event()

    def load() -> None:
        with Gateway(str(gateway.client.base_url)) as own:
            while not stop.is_set():
                answer = own.score(transaction_id=f"{threading.get_ident()}-{own.sent}")
                if answer.status_code != 200:
                    failed[answer.status_code] += 1
                else:
                    versions.append((time.monotonic(), answer.json()["model_version"]))

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(versions) > 20)
        before = versions[-1][1]
        promote_bundle(settings, write_bundle(tmp_path, "forest"), int(before) + 1)
        promoted = time.monotonic()
        until(lambda: versions[-1][1] != before)
        noticed = next(moment for moment, version in versions if version != before)
        until(lambda: len([1 for _, version in versions if version != before]) > 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failed
    assert noticed > promoted, "how soon is measured by benchmarks.swap, not by a test"
    assert versions[-1][1] == str(int(before) + 1)


def test_a_promotion_without_its_bundle_is_refused_and_the_old_model_goes_on(
    gateway: Gateway, settings: Settings
) -> None:
    before = gateway.score().json()["model_version"]
    append_promotion(settings.ledger_url, 99, "f" * 64)
    until(lambda: gateway.client.get("/model").json()["refused"] is not None)
    model, health = gateway.client.get("/model").json(), gateway.client.get("/health").json()
    assert (model["model_version"], model["refused"]["model_version"]) == (before, "99")
    assert health["status"] == "degraded"
    assert gateway.score().json()["model_version"] == before
    assert "fraud_model_refusals_total" in gateway.client.get("/metrics").text


def test_a_second_process_is_refused_with_the_reason(settings: Settings, service: ServiceProcess) -> None:
    from fraud_pipeline.adapters.ledger_writer import LedgerWriter
    from fraud_pipeline.errors import Busy

    assert service.process.poll() is None
    with Ledger.open(settings.ledger_url) as ledger, pytest.raises(Busy, match="already has its one writer"):
        LedgerWriter.open(ledger.database)


def test_a_database_that_goes_away_is_bridged_by_the_journal(tmp_path: Path) -> None:
    with server_of_my_own(PostgresServer) as server:
        settings = serving_home(tmp_path / "home").model_copy(update={"ledger_url": server.address})
        promote_bundle(settings, write_bundle(tmp_path / "made"), 1)
        environment = {"FRAUD_HOME": str(settings.home), "FRAUD_LEDGER_URL": server.address, "FRAUD_DAGSTER_URL": ""}
        with (
            service_running(tmp_path / "service.log", environment=environment) as service,
            Gateway(service.url) as gateway,
        ):
            answers = {a["transaction_id"]: a for a in (gateway.score().json() for _ in range(5))}
            server.stop()
            for _ in range(5):
                answer = gateway.score()
                assert answer.status_code == 200, answer.text
                assert answer.json()["degraded"] == ["ledger"]
                answers[answer.json()["transaction_id"]] = answer.json()
            assert gateway.client.get("/health").json()["status"] != "ok"
            server.start()
            until(lambda: gateway.client.get("/health").json()["dependencies"]["journal"]["entries"] == 0)
            until(lambda: gateway.score().json()["degraded"] == [])
            kept = {i: gateway.client.get(f"/score/{i}").json() for i in answers}
            assert kept == answers
