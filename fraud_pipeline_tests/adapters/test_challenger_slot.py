"""The challenger in the model slot, and the shadow: who decides, who decides too, and what becomes of a challenger that fails."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.model_slot import ModelSlot, fetcher, in_challenger_share
from fraud_pipeline.adapters.shadow import ShadowScorer
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision, decide_on
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.errors import DependencyError
from fraud_pipeline_tests.bundles import computed
from fraud_pipeline_tests.challenged_homes import appoint_version, make_version, promote_version

NOW = datetime(2026, 3, 3, tzinfo=UTC)
CUSTOMERS = [f"c{number}" for number in range(2_000)]


class Place:
    """A home with versions 1, 2 and 3, of which the first is champion."""

    def __init__(self, home: Path, ledger: Ledger) -> None:
        self.ledger = ledger
        self.no_registry = f"sqlite:///{home / 'no_mlflow.db'}"
        self.bundles = home / "bundles"
        self.fingerprints = {
            version: make_version(home, review=review) for version, review in ((1, 0.2), (2, 0.3), (3, 0.4))
        }
        self.fetched: list[int] = []
        promote_version(ledger, 1, self.fingerprints[1])

    def slot(self, *, share: float = 0.0) -> ModelSlot:
        fetch = fetcher(self.bundles, self.no_registry, self.bundles)

        def counted(version: int, fingerprint: str) -> Path:
            self.fetched.append(version)
            return fetch(version, fingerprint)

        return ModelSlot(self.ledger, counted, now=lambda: NOW, challenger_share=share)

    def appoint(self, version: int | None) -> None:
        appoint_version(self.ledger, version, None if version is None else self.fingerprints[version])

    def damage(self, version: int) -> None:
        (self.bundles / self.fingerprints[version][:16] / "bundle.json").write_text("{}")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        yield Place(tmp_path, ledger)


def challenging(slot: ModelSlot) -> str | None:
    return None if slot.challenger is None else slot.challenger.bundle.version


def refused_version(slot: ModelSlot) -> int | None:
    return None if slot.refused_challenger is None else slot.refused_challenger.version


def test_a_challenger_is_loaded_beside_the_champion_and_dropped_when_it_is_dismissed(place: Place):
    slot = place.slot()
    slot.refresh()
    assert (challenging(slot), slot.counterpart("1")) == (None, None)
    place.appoint(2)
    assert not slot.refresh()  # the champion is the same
    assert slot.challenger is not None
    assert (challenging(slot), slot.challenger.loaded_at, slot.challenger.appointment.who) == ("2", NOW, "test")
    place.appoint(3)
    slot.refresh()
    assert challenging(slot) == "3"
    place.appoint(None)
    slot.refresh()
    assert challenging(slot) is None
    assert place.fetched == [1, 2, 3]


def test_a_running_watch_notices_the_challenger(place: Place):
    slot = place.slot()
    slot.refresh()
    slot.watch()
    try:
        place.appoint(2)
        deadline = time.monotonic() + 10
        while challenging(slot) != "2" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert challenging(slot) == "2"
    finally:
        slot.close()


def test_a_challenger_that_is_damaged_is_refused_apart_from_the_champion(place: Place):
    slot = place.slot()
    place.appoint(2)
    slot.refresh()
    place.damage(3)
    place.appoint(3)
    slot.refresh()
    slot.refresh()  # not tried again at once
    assert slot.refused_challenger is not None
    assert (slot.refused_challenger.version, slot.refused) == (3, None)
    assert challenging(slot) is None
    assert slot.refusals == {"champion": 0, "challenger": 1}
    assert slot.champion is not None
    place.appoint(2)
    slot.refresh()
    assert challenging(slot) == "2"
    assert refused_version(slot) is None


def test_a_refused_challenger_that_is_dismissed_is_refused_no_more(place: Place):
    slot = place.slot()
    place.damage(2)
    place.appoint(2)
    slot.refresh()
    place.appoint(None)
    slot.refresh()
    assert slot.refused_challenger is None


def test_a_champion_that_is_refused_leaves_the_challenger(place: Place):
    slot = place.slot()
    place.appoint(2)
    slot.refresh()
    place.damage(3)
    promote_version(place.ledger, 3, place.fingerprints[3])
    slot.refresh()
    assert slot.refused is not None
    assert (slot.refused.version, challenging(slot)) == (3, "2")
    assert slot.refusals == {"champion": 1, "challenger": 0}


def test_a_challenger_that_is_promoted_is_not_loaded_again(place: Place):
    slot = place.slot()
    place.appoint(2)
    slot.refresh()
    promote_version(place.ledger, 2, place.fingerprints[2])
    place.appoint(None)
    assert slot.refresh()
    assert slot.champion is not None
    assert (slot.champion.bundle.version, challenging(slot)) == ("2", None)
    assert place.fetched == [1, 2]


def test_where_mlflow_is_not_installed_a_missing_bundle_is_refused_with_what_to_do(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(__import__("sys").modules, "fraud_pipeline.adapters.model_registry", None)
    with pytest.raises(DependencyError, match="Version 9 is not in") as caught:
        place.slot().fetch(9, "a" * 64)
    assert "fraud models show 9 --card" in caught.value.remedy


def test_the_challenger_decides_for_its_share_of_the_customers_always_the_same(place: Place):
    slot = place.slot(share=0.25)
    place.appoint(2)
    slot.refresh()
    first = {customer: version_for(slot, customer) for customer in CUSTOMERS}
    assert 0.2 < sum(version == "2" for version in first.values()) / len(CUSTOMERS) < 0.3
    assert {customer: version_for(place_again(place), customer) for customer in CUSTOMERS[:50]} == {
        customer: first[customer] for customer in CUSTOMERS[:50]
    }
    place.appoint(None)
    slot.refresh()
    assert {version_for(slot, customer) for customer in CUSTOMERS} == {"1"}


def test_a_larger_share_keeps_the_customers_of_a_smaller_one():
    small = {customer for customer in CUSTOMERS if in_challenger_share(customer, 0.1)}
    large = {customer for customer in CUSTOMERS if in_challenger_share(customer, 0.3)}
    assert small < large
    assert not any(in_challenger_share(customer, 0.0) for customer in CUSTOMERS)
    assert all(in_challenger_share(customer, 1.0) for customer in CUSTOMERS)


def place_again(place: Place) -> ModelSlot:
    slot = place.slot(share=0.25)
    slot.refresh()
    return slot


def version_for(slot: ModelSlot, customer: str) -> str:
    bundle = slot.bundle_for(customer)
    assert bundle is not None
    return bundle.version


def decided(bundle: ModelBundle, payment: Transaction, values: np.ndarray) -> Decision:
    vector = bundle.inputs.vector(values, payment)
    return decide_on(
        vector, bundle, transaction_id=payment.transaction_id, event_time=payment.event_time, decided_at=NOW
    )


def test_whoever_did_not_decide_decides_in_shadow_from_the_same_features(place: Place):
    slot, metrics = place.slot(share=0.5), LiveMetrics()
    place.appoint(2)
    slot.refresh()
    shadow = ShadowScorer(place.ledger, slot, metrics, control_share=0.0, now=lambda: NOW)
    given: list[Decision] = []
    for number, customer in enumerate(CUSTOMERS[:40]):
        payment = Transaction(f"t{number}", NOW, customer, "m1", 1250)
        values = computed(amount=12.5 * number, hour=3.0)
        bundle = slot.bundle_for(customer)
        assert bundle is not None
        given.append(decided(bundle, payment, values))
        shadow.offer([payment], [values], [given[-1].model_version])
    shadow.start()
    shadow.close()
    assert {decision.model_version for decision in given} == {"1", "2"}
    assert (metrics.shadow_decisions, metrics.shadow_dropped) == (40, 0)
    for decision in given:
        kept = place.ledger.decision(decision.transaction_id, role="shadow")
        assert kept is not None
        assert {kept.model_version, decision.model_version} == {"1", "2"}
        assert (kept.features, kept.fraud_probability) == (decision.features, decision.fraud_probability)


def test_without_a_challenger_nothing_is_decided_twice(place: Place):
    slot, metrics = place.slot(), LiveMetrics()
    slot.refresh()
    shadow = ShadowScorer(place.ledger, slot, metrics, control_share=0.0, now=lambda: NOW)
    assert slot.champion is not None
    payment = Transaction("t1", NOW, "c1", "m1", 1250)
    shadow.offer([payment], [computed()], [slot.champion.bundle.version])
    shadow.start()
    shadow.close()
    assert metrics.shadow_decisions == 0
    assert place.ledger.decision("t1", role="shadow") is None


def test_what_cannot_be_decided_in_shadow_is_counted_and_the_next_is_decided(place: Place):
    slot, metrics = place.slot(), LiveMetrics()
    place.appoint(2)
    slot.refresh()
    shadow = ShadowScorer(place.ledger, slot, metrics, control_share=0.0, now=lambda: NOW)
    assert slot.champion is not None
    payments = [Transaction(f"t{number}", NOW, "c1", "m1", 1250) for number in range(2)]
    answer = decided(slot.champion.bundle, payments[0], computed())
    shadow.start()
    shadow.offer(payments[:1], [np.zeros(3, dtype=np.float32)], [answer.model_version])  # not the features of this code
    deadline = time.monotonic() + 10
    while metrics.shadow_dropped == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    shadow.offer(payments[1:2], [computed()], [answer.model_version])
    shadow.close()
    assert (metrics.shadow_dropped, metrics.shadow_decisions) == (1, 1)
    assert place.ledger.decision("t1", role="shadow") is not None
