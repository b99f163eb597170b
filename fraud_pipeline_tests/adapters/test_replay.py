"""The past decided anew: identical under its bundle, a what-if under another; whatever was changed since is found."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.decision_check import CheckedDecision, check_decision
from fraud_pipeline.adapters.feature_store import FeatureStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.past_log import HistoryPast, LocalPast
from fraud_pipeline.adapters.replay import LOGGED, Replay, ReplayPlan, ReplayReport
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.thresholds import Costs
from fraud_pipeline.errors import InputError, NotFound, StateError
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.decided_homes import OTHER, PAYMENTS, SWITCHED_AT, bundle, decided_home, states_of
from fraud_pipeline_tests.serving.home import HISTORY_END, made_bundle

END = HISTORY_END + timedelta(days=1)
NOW = HISTORY_END + timedelta(days=30)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return decided_home(tmp_path_factory.mktemp("decided") / "home")


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """A home that a test may harm."""
    return decided_home(tmp_path / "own")


def replayed(
    settings: Settings, out: Path, version: str = LOGGED, *, since: datetime = HISTORY_END, until: datetime = END
) -> ReplayReport:
    with Ledger.open(settings.ledger_url) as ledger:
        past = LocalPast(ledger, states_of(settings, ledger), time_zone="UTC")
        plan = ReplayPlan(bundle=version, now=NOW, control_share=0.01, costs=Costs(), maturity=timedelta(days=7))
        labels = {label.transaction_id: label.is_fraud for label, _ in ledger.labels_known(HISTORY_END, NOW)}
        return Replay(ledger, plan, bundle, labels=labels, out=out).run(past.payments(since, until))


def checked(settings: Settings, identity: str, bundle_of: object = bundle) -> CheckedDecision:
    with Ledger.open(settings.ledger_url) as ledger:
        past = LocalPast(ledger, states_of(settings, ledger), time_zone="UTC")
        return check_decision(ledger, [past], bundle_of, identity, control_share=0.01)  # type: ignore[arg-type]


def harm(settings: Settings, statement: str, **values: object) -> None:
    with Ledger.open(settings.ledger_url) as ledger, ledger.database.writing() as connection:
        assert connection.execute(sa.text(statement), values).rowcount == 1


def moment(number: int) -> datetime:
    """When `live-<number>` was received."""
    return HISTORY_END + timedelta(seconds=20 * number)


def test_what_was_decided_comes_out_the_same_under_its_own_bundles(settings: Settings, tmp_path: Path) -> None:
    report = replayed(settings, tmp_path / "out")
    assert (report.payments, report.again, report.identical, report.undecided) == (PAYMENTS, PAYMENTS, PAYMENTS, 0)
    assert report.equal
    assert report.versions == {"1": SWITCHED_AT, "2": PAYMENTS - SWITCHED_AT}
    assert report.what_if.changed == 0
    table = pq.read_table(tmp_path / "out" / "part-0000.parquet")
    assert table["transaction_id"].to_pylist() == [f"live-{number}" for number in range(PAYMENTS)]
    assert table["decision"].to_pylist() == table["logged_decision"].to_pylist()
    assert len(set(table["decision"].to_pylist())) > 1
    with Ledger.open(settings.ledger_url) as ledger:
        record = ledger.decision("live-7")
    assert record is not None
    assert table["features"][7].as_py() == record.features


@pytest.mark.parametrize(("first", "last"), [(0, 10), (40, 60), (51, 52), (70, PAYMENTS)])
def test_a_part_of_the_past_begins_at_the_state_before_it(
    settings: Settings, tmp_path: Path, first: int, last: int
) -> None:
    report = replayed(settings, tmp_path / "out", since=moment(first), until=moment(last))
    assert (report.payments, report.identical) == (last - first, last - first)


def test_a_range_without_payments_is_empty(settings: Settings, tmp_path: Path) -> None:
    report = replayed(settings, tmp_path / "out", since=NOW)
    assert (report.payments, report.equal) == (0, True)


def test_another_bundle_says_what_would_have_changed_and_what_it_is_worth(settings: Settings, tmp_path: Path) -> None:
    report = replayed(settings, tmp_path / "out", "2")
    assert (report.again, report.identical) == (PAYMENTS - SWITCHED_AT, PAYMENTS - SWITCHED_AT)
    what_if = report.what_if
    assert what_if.payments == PAYMENTS == sum(what_if.decisions.values())
    assert 0 < what_if.changed < PAYMENTS
    stricter = {"APPROVE -> REVIEW", "APPROVE -> BLOCK", "REVIEW -> BLOCK"}
    moved = {name for name in what_if.decisions if len(set(name.split(" -> "))) == 2}
    assert moved <= stricter
    assert what_if.frauds > 0
    assert what_if.value_difference != 0
    table = pq.read_table(tmp_path / "out" / "part-0000.parquet")
    assert set(table["model_version"].to_pylist()) == {"2"}
    changed = [a != b for a, b in zip(table["decision"].to_pylist(), table["logged_decision"].to_pylist(), strict=True)]
    assert sum(changed) == what_if.changed


def test_a_replay_changes_nothing_that_was_there(settings: Settings, tmp_path: Path) -> None:
    with Ledger.open(settings.ledger_url) as ledger:
        before = ledger.decisions(HISTORY_END, NOW)
    replayed(settings, tmp_path / "out", "2")
    with Ledger.open(settings.ledger_url) as ledger:
        assert ledger.decisions(HISTORY_END, NOW) == before


def test_the_decisions_of_another_replay_are_not_overwritten(settings: Settings, tmp_path: Path) -> None:
    replayed(settings, tmp_path / "out")
    with pytest.raises(InputError, match="another replay"):
        replayed(settings, tmp_path / "out")


def test_a_changed_payment_is_found_in_those_that_come_after_it(own: Settings, tmp_path: Path) -> None:
    harm(own, "UPDATE transactions SET amount_minor = amount_minor + 100 WHERE transaction_id = 'live-60'")
    report = replayed(own, tmp_path / "out", since=moment(61))
    assert not report.equal
    assert report.first_difference is not None
    assert report.first_difference["transaction_id"] == "live-67"  # the same customer's next


def test_a_changed_bundle_is_found(settings: Settings, tmp_path: Path) -> None:
    def other(version: str) -> ModelBundle:
        path = made_bundle(**OTHER) if version == "1" else made_bundle()
        return ModelBundle.load(path, version=version)

    replayed(settings, tmp_path / "out", "2", until=moment(SWITCHED_AT))
    table = pq.read_table(tmp_path / "out" / "part-0000.parquet").to_pylist()
    changed = next(row["transaction_id"] for row in table if row["decision"] != row["logged_decision"])
    found = checked(settings, changed, other)
    assert not found.equal
    assert not found.features
    given, again = found.executed["decision"]
    assert given == found.decision.decision != again


def test_a_decision_is_verified_from_its_vector_and_from_the_log(settings: Settings) -> None:
    found = checked(settings, "live-97")
    assert found.equal
    assert (found.executed, found.features, found.recomputed) == ({}, (), None)
    assert found.place is not None
    assert found.place.startswith("local@")


def test_a_changed_vector_is_found_with_its_features(own: Settings) -> None:
    with Ledger.open(own.ledger_url) as ledger:
        record = ledger.decision("live-20")
    assert record is not None
    vector = np.frombuffer(record.features, "<f4").copy()
    vector[0] = np.nextafter(vector[0], np.float32(np.inf))
    harm(own, "UPDATE decisions SET features = :f WHERE transaction_id = 'live-20'", f=vector.tobytes())
    found = checked(own, "live-20")
    assert not found.equal
    (difference,) = found.features
    assert difference.feature == bundle("1").input_names[0]
    assert difference.logged == pytest.approx(difference.recomputed)
    assert difference.logged != difference.recomputed
    assert found.recomputed is not None


def test_a_dropped_event_is_found_as_a_gap(own: Settings, tmp_path: Path) -> None:
    harm(own, "DELETE FROM transactions WHERE transaction_id = 'live-60'")
    with pytest.raises(StateError, match="gap is never skipped"):
        checked(own, "live-67")
    with pytest.raises(StateError, match="gap is never skipped"):
        replayed(own, tmp_path / "out", since=moment(70))


def test_an_event_that_was_put_on_another_customer_is_found_in_the_features(own: Settings) -> None:
    harm(own, "UPDATE transactions SET customer_id = 'nobody' WHERE transaction_id = 'live-60'")
    found = checked(own, "live-67")
    assert not found.executed
    assert {difference.feature for difference in found.features} > set()
    assert isinstance(found.recomputed, Decision)
    assert found.recomputed.model_version == "1"


def test_a_decision_that_was_never_given_is_not_found(settings: Settings) -> None:
    with pytest.raises(NotFound, match="live-9999"):
        checked(settings, "live-9999")


def test_a_decision_without_its_log_says_that_nothing_was_recomputed(settings: Settings) -> None:
    with Ledger.open(settings.ledger_url) as ledger:
        found = check_decision(ledger, [], bundle, "live-3", control_share=0.01)
    assert (found.place, found.executed, found.equal) == (None, {}, False)


def test_days_before_the_log_are_decided_from_their_stored_features(settings: Settings, tmp_path: Path) -> None:
    store = DatasetStore(settings.home)
    history = HistoryPast(FeatureStore(store, CheckpointStore(settings.checkpoint_url)), end=HISTORY_END.date())
    since, until = HISTORY_END - timedelta(days=2), HISTORY_END - timedelta(hours=6)
    pages = list(history.payments(since, until))
    moments = [payment.event_time for page in pages for payment in page.transactions]
    assert moments
    assert all(since <= each < until for each in moments)
    with Ledger.open(settings.ledger_url) as ledger:
        plan = ReplayPlan(bundle="1", now=NOW, control_share=0.01, costs=Costs(), maturity=timedelta(days=7))
        report = Replay(ledger, plan, bundle, labels={}, out=tmp_path / "out").run(pages)
    assert (report.payments, report.undecided, report.again) == (len(moments), len(moments), 0)
    one = history.payment(pages[0].transactions[0].transaction_id)
    assert one is not None
    assert one.computed[0].tobytes() == pages[0].computed[0].tobytes()
    assert history.payment("nobody") is None
    shorter = HistoryPast(FeatureStore(store, CheckpointStore(settings.checkpoint_url)), end=since.date())
    assert list(shorter.payments(since, until)) == []
    assert shorter.payment(one.transactions[0].transaction_id) is None
    assert datetime(2020, 1, 1, tzinfo=UTC) < moments[0]
