"""What the drift report samples: what was really served where it was, stored features where it was not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from fraud_pipeline.adapters.champion_watch import champion_reference, current_week, judge_drift, recent_days
from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.sampled_days import choose, id_hashes, read_sample
from fraud_pipeline.domain.decision import in_control_share
from fraud_pipeline.domain.drift import DriftVerdict
from fraud_pipeline.errors import BundleError, DatasetError
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.bundles import payments
from fraud_pipeline_tests.decided_homes import PAYMENTS, SWITCHED_AT, bundle
from fraud_pipeline_tests.served_days import LIVE_DAY, builder_of, served_home
from fraud_pipeline_tests.worlds import WORLD_END

AS_OF = LIVE_DAY + timedelta(days=2)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return served_home(tmp_path_factory.mktemp("home") / "h")


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger.open(settings.ledger_url) as held:
        yield held


def test_a_served_day_brings_the_logged_vectors_and_the_answered_scores(settings: Settings, ledger: Ledger):
    champion = bundle("1")
    sample = read_sample(DatasetStore(settings.home), champion, [LIVE_DAY], ledger=ledger, at_most=1_000)
    assert sample is not None
    assert sample.counts.to_json() == {
        "rows": PAYMENTS, "sampled": PAYMENTS, "live": PAYMENTS, "answered": SWITCHED_AT,
        "rescored": PAYMENTS - SWITCHED_AT, "degraded": 0, "undecided": 0, "recomputed": 0,
    }  # fmt: skip
    ids = sample.payments["transaction_id"].to_pylist()
    logged = {record.transaction_id: np.frombuffer(record.features, "<f4") for record in ledger.decided(ids)}
    for place, each in enumerate(ids):
        assert logged[each].tobytes() == sample.vectors[place].tobytes(), each
    assert np.array_equal(sample.raw, champion.score(sample.vectors).raw)


def test_it_is_the_log_that_counts_and_not_a_recomputation(settings: Settings, tmp_path: Path, ledger: Ledger):
    """Stored features that are wrong change nothing of what was served."""
    store, champion = DatasetStore(settings.home), bundle("1")

    class WrongFeatures(DatasetStore):
        def read_day(self, dataset, day, columns=None, **how):
            table = super().read_day(dataset, day, columns, **how)
            if dataset == "features":
                place = table.schema.get_field_index("amount")
                table = table.set_column(place, "amount", [np.full(table.num_rows, -5, np.float32)])
            return table

    served = read_sample(WrongFeatures(settings.home), champion, [LIVE_DAY], ledger=ledger, at_most=1_000)
    right = read_sample(store, champion, [LIVE_DAY], ledger=ledger, at_most=1_000)
    history = read_sample(
        WrongFeatures(settings.home), champion, [WORLD_END - timedelta(days=1)], ledger=ledger, at_most=1_000
    )
    assert served is not None
    assert right is not None
    assert history is not None
    assert served.vectors.tobytes() == right.vectors.tobytes()
    assert history.counts.recomputed == history.counts.sampled > 50
    assert set(history.vectors[:, 0]) == {-5.0}


def test_history_and_live_days_go_together_and_an_empty_day_adds_nothing(settings: Settings, ledger: Ledger):
    days = [LIVE_DAY + timedelta(days=back) for back in (-2, -1, 0, 1)]
    sample = read_sample(DatasetStore(settings.home), bundle("1"), days, ledger=ledger, at_most=100_000)
    assert sample is not None
    assert sample.counts.live == PAYMENTS
    assert sample.counts.recomputed == sample.counts.rows - PAYMENTS > 100
    assert len(set(sample.day.tolist())) == 3
    assert not np.isnan(sample.raw).any()
    assert read_sample(DatasetStore(settings.home), bundle("1"), days[3:], ledger=ledger, at_most=9) is None


def test_a_sample_has_the_wanted_size_and_no_favourites(settings: Settings):
    store = DatasetStore(settings.home)
    days = store.days("transactions")[:-1]
    rows = sum(store.manifest("transactions", day).rows for day in days)
    chosen = choose(store, days, at_most=400)
    assert sum(map(len, chosen.values())) == 400
    for day, places in chosen.items():
        size = store.manifest("transactions", day).rows
        expected, spread = 400 * size / rows, np.sqrt(400 * size / rows)
        assert abs(len(places) - expected) < 4 * spread, day
    everything = choose(store, days, at_most=rows)
    assert sum(map(len, everything.values())) == rows
    again = choose(store, days[::-1], at_most=400)
    assert {day: places.tolist() for day, places in again.items()} == {d: p.tolist() for d, p in chosen.items()}


def test_the_sample_is_drawn_by_a_hash_of_its_own():
    """The control share is drawn by a hash of the id: a sample by the same one would hold none of it, or only it."""
    ids = [f"payment-{number}" for number in range(40_000)]
    hashes = id_hashes(ids)
    chosen = np.argsort(hashes)[:20_000]
    control = np.array([in_control_share(each, 0.05) for each in ids])
    assert abs(control[chosen].mean() - control.mean()) < 0.005


def test_labels_are_those_known_by_the_day_and_blocks_without_one_fall_out(settings: Settings, ledger: Ledger):
    builder, champion = builder_of(settings), bundle("1")
    day = WORLD_END - timedelta(days=8)
    late = recent_days(builder, champion, [day], as_of=AS_OF, ledger=ledger)
    early = recent_days(builder, champion, [day], as_of=day + timedelta(days=1), ledger=ledger)
    assert late is not None
    assert early is not None
    assert int(late.data.is_fraud.sum()) > int(early.data.is_fraud.sum())
    whole = builder.rows([day], as_of=AS_OF, model_input=champion.facts.model_input).data
    assert np.array_equal(whole.is_fraud, late.data.is_fraud)
    assert whole.features.tobytes() == late.data.features.tobytes()
    assert np.array_equal(whole.customer, late.data.customer)
    assert (whole.channel_names, whole.country_names) == (late.data.channel_names, late.data.country_names)
    assert np.array_equal(whole.channel, late.data.channel)
    all_of_it = recent_days(builder, champion, [LIVE_DAY], as_of=AS_OF, ledger=ledger)
    counting = recent_days(builder, champion, [LIVE_DAY], as_of=AS_OF, ledger=ledger, control_share=0.01)
    assert all_of_it is not None
    assert counting is not None
    fallen = int((all_of_it.data.blocked & ~all_of_it.data.labelled & ~all_of_it.data.control).sum())
    assert len(counting.data) == len(counting.raw) == len(counting.day) == len(all_of_it.data) - fallen


def test_a_week_is_judged_and_an_empty_one_is_a_broken_input(settings: Settings, ledger: Ledger):
    builder, champion = builder_of(settings), bundle("1")
    current = current_week(builder, champion, as_of=AS_OF, ledger=ledger)
    assert not isinstance(current, DriftVerdict)
    verdict, samples = judge_drift(champion, current, mature=None)
    assert verdict.current_rows == len(samples["current"]) == current.counts.sampled
    quiet = LIVE_DAY + timedelta(days=8)  # of its week only the day on which nothing came is there
    nothing = current_week(builder, champion, as_of=quiet, ledger=ledger)
    assert isinstance(nothing, DriftVerdict)
    told, _ = judge_drift(champion, nothing, mature=None)
    assert (told.status, told.reasons) == (
        "broken_input", (f"not one payment came from {LIVE_DAY + timedelta(days=1)} to {LIVE_DAY + timedelta(days=1)}",),
    )  # fmt: skip
    with pytest.raises(DatasetError, match="No day of the week before 2027-01-01 has features"):
        current_week(builder, champion, as_of=LIVE_DAY.replace(year=2027, month=1, day=1), ledger=ledger)


class WithReference:
    """A champion whose drift reference is another one."""

    def __init__(self, reference: object) -> None:
        self._real, self._reference = bundle("1"), reference
        self.version, self.input_names = self._real.version, self._real.input_names

    def reference(self) -> object:
        if isinstance(self._reference, Exception):
            raise self._reference
        return self._reference


@pytest.mark.parametrize("broken", [TypeError("missing 1 argument: 'raw'"), ValueError("it is no npz file")])
def test_a_champion_whose_reference_cannot_be_read_is_named(broken: Exception):
    with pytest.raises(BundleError, match="The drift reference of version 1 cannot be read") as caught:
        champion_reference(WithReference(broken))  # type: ignore[arg-type]
    assert "fraud run" in caught.value.remedy


def test_a_champion_without_reference_is_named():
    from fraud_pipeline.domain.bundle import Reference

    values, fraud = payments()
    scores = np.zeros(0)
    empty = Reference(values[:0], scores.astype(np.float32), scores, scores, fraud[:0])
    with pytest.raises(BundleError, match="Version 1 has no drift reference of its inputs"):
        champion_reference(WithReference(empty))  # type: ignore[arg-type]
