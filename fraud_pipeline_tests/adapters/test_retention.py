"""What is old and needed by nothing goes; features, training and decisions go on as if nothing had happened."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fraud_pipeline.adapters.dataset_store import DatasetStore
from fraud_pipeline.adapters.feature_store import FeatureStore
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.live_state import LiveStateStore
from fraud_pipeline.adapters.retention import Retained, Retention
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.errors import DatasetError, SettingsError, StateError
from fraud_pipeline.home_retention import apply_retention
from fraud_pipeline.settings import Settings, load_settings
from fraud_pipeline_tests.serving.home import append_promotion
from fraud_pipeline_tests.worlds import WORLD_END, feature_store, stored_world

NOW = datetime.now(UTC)
KEPT = 4


class Home:
    """Twelve days with features, reports, plots and bundles, some of them old."""

    def __init__(self, path: Path) -> None:
        self.settings = Settings(home=path)
        self.store, self.days = stored_world(path)
        self.features: FeatureStore = feature_store(path, self.store)
        list(self.features.materialize(self.days))

    def retain(self, days: int = KEPT, *, dry_run: bool = False) -> Retained:
        return apply_retention(self.settings, days_kept=days, dry_run=dry_run)

    def file(self, path: Path, *, days_old: float) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")
        then = (NOW - timedelta(days=days_old)).timestamp()
        os.utime(path, (then, then))
        os.utime(path.parent, (then, then))
        return path

    def bundle(self, name: str, *, days_old: float) -> Path:
        return self.file(self.settings.bundles_dir / name / "bundle.json", days_old=days_old).parent


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_old_days_go_and_everything_after_them_stays_what_it_was(home: Home) -> None:
    histories = home.features.histories()
    before = home.store.manifest("features", home.days[-2]).fingerprint
    done = home.retain()
    assert done.cutoff == home.days[-KEPT]
    assert done.days == tuple(home.days[:-KEPT])
    assert done.freed_bytes > 0
    assert home.store.days("transactions") == home.store.days("features") == home.days[-KEPT:]
    assert not list((home.settings.data_dir / "transactions" / f"day={home.days[0]}").glob("*.parquet"))
    assert home.features.histories() == histories  # so no day is stale, and no training another one
    assert home.features.stale_days(home.days) == []
    # A later day can be computed anew, from the state after the last deleted one.
    days = [day.day for day in home.features.materialize(home.days)]
    assert days == home.days[-KEPT:]
    assert home.store.manifest("features", home.days[-2]).fingerprint == before
    assert home.retain().days == ()


def test_a_live_state_begins_where_the_history_ended_though_its_days_are_gone(home: Home) -> None:
    with Ledger.open(home.settings.ledger_url) as ledger:
        live = LiveStateStore(home.settings.home, home.features.checkpoints, ledger)
        named, base = live.history(), live.base().state.snapshot()
        for number in range(10):  # ten served days, and only those are kept
            day = WORLD_END + timedelta(days=number)
            rows = home.store.read_day("transactions", home.days[-1]).slice(0, 5)
            home.store.write_day("transactions", day, rows, verdict="passed")
            home.store.write_day("labels", day, home.store.read_day("labels", home.days[-1]).slice(0, 0))
            assert [each.day for each in home.features.materialize([day])] == [day]
        home.retain(5)
        assert home.store.days("transactions")[0] > WORLD_END
        assert (live.history(), live.base().state.snapshot()) == (named, base)
        home.retain(3)
        assert (live.history(), live.base().state.snapshot()) == (named, base)


def test_a_lost_state_is_told_and_no_day_is_computed_from_nothing(home: Home) -> None:
    home.retain()
    for folder in home.features.checkpoints.names("history"):
        for name in home.features.checkpoints.names(f"history/{folder}"):
            home.features.checkpoints.remove(f"history/{folder}/{name}")
    with pytest.raises(StateError, match="its days were deleted"):
        list(home.features.materialize(home.days[-2:]))


def test_a_deleted_day_is_closed_like_any_other(home: Home) -> None:
    rows = home.store.read_day("transactions", home.days[0])
    home.retain()
    assert home.store.write_day("transactions", home.days[0], rows).rows == rows.num_rows
    assert not home.store.has_day("transactions", home.days[0])
    with pytest.raises(DatasetError, match="was deleted by the retention"):
        home.store.write_day("transactions", home.days[0], rows.slice(1))


def test_what_a_killed_deletion_left_goes_the_next_time(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".parquet" and str(home.days[3]) in str(path):
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        home.retain()
    assert home.features.stale_days(home.days) == []
    monkeypatch.setattr(Path, "unlink", unlink)
    home.retain()
    left = list(home.settings.data_dir.glob("*/day=*/*.parquet"))
    assert {path.parent.name for path in left} == {f"day={day}" for day in home.days[-KEPT:]}


def test_a_dry_run_names_the_same_and_deletes_nothing(home: Home) -> None:
    would = home.retain(dry_run=True)
    assert home.store.days("transactions") == home.days
    done = home.retain()
    assert (would.days, would.files, would.bundles) == (done.days, done.files, done.bundles)
    assert would.freed_bytes >= done.freed_bytes > 0


def test_nothing_goes_where_everything_is_kept_or_nothing_is_old(home: Home) -> None:
    assert home.retain(0) == Retained(None)
    assert home.retain(100).days == ()


def test_old_reports_go_but_the_newest_of_each_kind(home: Home) -> None:
    drift = home.settings.reports_dir / "drift"
    old = home.file(drift / "2026-01-01-version-1.html", days_old=30)
    newest = home.file(drift / "2026-02-01-version-1.html", days_old=20)
    data = home.file(drift / "2026-01-01-version-1.json", days_old=30)
    plot = home.file(home.settings.plots_dir / "x" / "a.png", days_old=30)
    young = home.file(home.settings.plots_dir / "x" / "b.png", days_old=1)
    assert set(home.retain().files) == {str(old), str(plot)}
    assert newest.exists()
    assert data.exists()
    assert young.exists()
    assert not old.exists()


def test_bundles_that_something_names_stay_whatever_their_age(home: Home) -> None:
    named = {version: f"{version:016d}" for version in range(1, 6)}
    for version, fingerprint in named.items():
        home.bundle(f"{version}-{fingerprint}", days_old=300)
        append_promotion(home.settings.ledger_url, version, fingerprint + "0" * 48)
    home.bundle("f" * 16, days_old=300)
    young = home.bundle("e" * 16, days_old=1)
    done = home.retain()
    assert done.needed == {"5-0000000000000005": "champion", "4-0000000000000004": "champion before"}
    assert set(done.bundles) == {"1-0000000000000001", "2-0000000000000002", "3-0000000000000003", "f" * 16}
    assert {path.name for path in home.settings.bundles_dir.iterdir()} == {*done.needed, young.name}


def test_a_retention_shorter_than_a_training_needs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_DATA_RETENTION_DAYS", "100")
    with pytest.raises(SettingsError, match="FRAUD_DATA_RETENTION_DAYS must be 0 or at least 284"):
        load_settings()
    monkeypatch.setenv("FRAUD_MAX_PERIOD_DAYS", "28")
    monkeypatch.setenv("FRAUD_DATA_RETENTION_DAYS", "160")
    assert load_settings().data_retention_days == 160


def test_a_retention_needs_no_days_to_say_so(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        store = DatasetStore(tmp_path)
        retention = Retention(
            feature_store(tmp_path, store), SourceStore(tmp_path), ledger, folders=(), bundles=tmp_path / "bundles"
        )
        assert retention.apply(300, now=NOW) == Retained(None)
