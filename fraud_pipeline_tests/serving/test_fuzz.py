"""Bodies good and bad through the real HTTP stack, some thousands of them; `make fuzz` sends a hundred thousand."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraud_pipeline_tests.service_process import ServiceProcess
from fraud_pipeline_tests.serving.fuzz_bodies import BAD_VALUES, Bodies, FuzzCase
from fraud_pipeline_tests.serving.fuzz_judge import complaint
from fraud_pipeline_tests.serving.fuzz_oracle import expected_of

pytestmark = pytest.mark.slow

DECISION = json.dumps({"decision": "APPROVE"}).encode()
BODIES = Bodies("fuzz-test")


@pytest.fixture(scope="module")
def client(scoring_service: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=scoring_service.url, timeout=30, trust_env=False) as client:
        yield client


def asked(client: httpx.Client, case: FuzzCase) -> str | None:
    """What is wrong with the answer."""
    answer = client.post("/score", content=case.body, headers=case.headers)
    wrong = complaint(case, answer.status_code, answer.headers.get("content-type", ""), answer.content)
    return wrong and f"{case.kind}: {wrong} to {case.body[:300]!r}: {answer.text[:300]}"


@settings(max_examples=2_500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**64 - 1))
def test_every_body_is_answered_as_the_oracle_says(client: httpx.Client, seed: int) -> None:
    # A seed, not Hypothesis' own random: what is drawn depends on ids and times, which are new in every example.
    assert asked(client, BODIES.case(random.Random(seed), datetime.now(UTC), huge=False)) is None


def test_bodies_of_megabytes_are_refused_and_the_service_lives(client: httpx.Client) -> None:
    rng = random.Random(3)
    cases = [BODIES._huge(rng, datetime.now(UTC)) for _ in range(6)]
    assert {case.kind for case in cases} == {"10 MB id", "gzip bomb"}
    for case in cases:
        assert asked(client, case) is None
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_bad_value_is_named(client: httpx.Client, name: str) -> None:
    rng, now = random.Random(5), datetime.now(UTC)
    for _ in range(15):
        payment = BODIES.payment(rng, now) | {name: BAD_VALUES[name](rng, now)}
        case = FuzzCase(
            name, json.dumps(payment).encode(), "refuse", broken=frozenset({name}), statuses=frozenset({422})
        )
        assert asked(client, case) is None


def test_the_judge_sees_a_wrong_accept_a_wrong_refusal_and_an_error() -> None:
    bad, good = FuzzCase("bad", b"{}", "refuse", broken=frozenset({"amount"})), FuzzCase("good", b"{}", "accept")
    problem = json.dumps({"status": 422, "errors": [{"field": "amount"}]}).encode()
    media = "application/problem+json"
    assert complaint(bad, 422, media, problem) is None
    assert complaint(good, 200, "application/json", DECISION) is None
    assert "200, not" in str(complaint(bad, 200, "application/json", DECISION))
    assert "422, not [200]" in str(complaint(good, 422, media, problem))
    assert "500, not" in str(complaint(bad, 500, media, problem))
    assert "does not name" in str(complaint(bad, 422, media, json.dumps({"status": 422}).encode()))
    assert "not a problem" in str(complaint(bad, 422, "text/html", b"<html>"))
    assert "without a decision" in str(complaint(good, 200, "application/json", b"{}"))


def test_the_oracle_tells_good_from_bad() -> None:
    now = datetime.now(UTC)
    rng = random.Random(1)
    payment = BODIES.payment(rng, now)
    payment |= {"amount": 1}
    text = json.dumps(payment)
    assert expected_of(text.encode(), now) == "accept"
    assert expected_of((text[:-1] + ', "amount": 1}').encode(), now) == "refuse"
    assert expected_of((text[:-1] + ', "deep": ' + "[" * 15 + "]" * 15 + "}").encode(), now) == "accept"
    assert expected_of((text[:-1] + ', "deep": ' + "[" * 16 + "]" * 16 + "}").encode(), now) == "refuse"
    assert expected_of(json.dumps({"transaction_id": "a"}).encode(), now) == "reference"
    assert expected_of(text.encode(), now.replace(year=now.year + 1)) == "refuse"


def test_every_kind_of_bad_input_is_among_the_bodies() -> None:
    rng, now = random.Random(2), datetime.now(UTC)
    kinds = {BODIES.case(rng, now, huge=False).kind for _ in range(5_000)}
    assert {f"bad {name}" for name in BAD_VALUES} <= kinds
    assert {"duplicate keys", "lone surrogate", "deep lists", "bad number", "content type", "mutated", "valid"} <= kinds
    assert {"broken gzip: checksum", "broken gzip: cut off", "broken gzip: not gzip", "encoding", "cut off"} <= kinds
