from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fraud_pipeline.adapters import model_slot
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.model_slot import ModelSlot, RefusedModel, fetcher, in_challenger_share, local_bundle
from fraud_pipeline.domain.bundle_files import read_directory, write_directory
from fraud_pipeline.domain.promotion import Challenger
from fraud_pipeline.errors import DependencyError
from fraud_pipeline.settings import Settings
from fraud_pipeline_tests.serving.home import HISTORY_END, append_promotion, empty_home, made_bundle, promote_bundle

DEADLINE_S = 20.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return empty_home(tmp_path / "home")


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger.open(settings.ledger_url) as opened:
        yield opened


class Fetched:
    """The home's bundles, counted."""

    def __init__(self, settings: Settings) -> None:
        self.versions: list[int] = []
        self._fetch = fetcher(settings.bundles_dir, settings.mlflow_tracking_uri, settings.artifacts_dir)
        self.problem: Exception | None = None

    def __call__(self, version: int, fingerprint: str) -> Path:
        self.versions.append(version)
        if self.problem is not None:
            raise self.problem
        return self._fetch(version, fingerprint)


@pytest.fixture
def fetched(settings: Settings) -> Fetched:
    return Fetched(settings)


@pytest.fixture
def slot(ledger: Ledger, fetched: Fetched) -> ModelSlot:
    return ModelSlot(ledger, fetched, now=lambda: HISTORY_END)


def decides(slot: ModelSlot) -> str | None:
    bundle = slot.bundle_for("c1")
    return None if bundle is None else bundle.version


def refused(slot: ModelSlot) -> RefusedModel | None:
    return slot.refused


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def forget_refusals(slot: ModelSlot) -> None:
    """As if RETRY_S had gone by."""
    for refused in (slot.refused, slot.refused_challenger):
        if refused is not None:
            refused.at_monotonic -= model_slot.RETRY_S


def appoint(ledger: Ledger, version: int | None, fingerprint: str | None) -> Challenger:
    before = ledger.current_challenger()
    number = 1 if before is None else before.challenger_id + 1
    challenger = Challenger(number, version, fingerprint, "test", "for a test", HISTORY_END)
    ledger.append_challenger(challenger)
    return challenger


def test_nobody_decides_before_the_first_look(slot: ModelSlot):
    assert decides(slot) is None


def test_the_ledgers_champion_decides_and_is_loaded_once(slot: ModelSlot, fetched: Fetched, ledger: Ledger):
    assert slot.refresh() is True
    assert slot.refresh() is False
    assert slot.champion is not None
    assert (slot.champion.promotion, slot.champion.loaded_at) == (ledger.current_promotion(), HISTORY_END)
    assert slot.champion.bundle.fingerprint == read_directory(made_bundle())[1]
    assert (decides(slot), slot.swaps, fetched.versions) == ("1", 1, [1])


def test_a_promotion_is_noticed_and_a_rollback_loads_nothing(slot: ModelSlot, fetched: Fetched, settings: Settings):
    slot.refresh()
    first = slot.champion
    promote_bundle(settings, made_bundle(0.1), 2)
    assert slot.refresh() is True
    assert first is not None
    assert slot.previous is first
    assert decides(slot) == "2"
    promote_bundle(settings, made_bundle(), 1)
    shutil.rmtree(settings.bundles_dir)
    assert slot.refresh() is True
    assert slot.champion is not None
    assert slot.champion.bundle is first.bundle
    assert slot.champion.promotion.promotion_id == 3
    assert (decides(slot), fetched.versions, slot.swaps) == ("1", [1, 2], 3)


def test_the_same_version_promoted_again_is_not_loaded_again(slot: ModelSlot, fetched: Fetched, settings: Settings):
    slot.refresh()
    again = promote_bundle(settings, made_bundle(), 1)
    slot.refresh()
    assert slot.champion is not None
    assert (slot.champion.promotion, slot.previous, fetched.versions) == (again, None, [1])


def test_the_same_content_as_another_version_is_another_model(slot: ModelSlot, settings: Settings):
    slot.refresh()
    promote_bundle(settings, made_bundle(), 2)
    slot.refresh()
    assert decides(slot) == "2"


def test_the_watch_notices_within_two_seconds(slot: ModelSlot, settings: Settings):
    assert model_slot.POLL_S <= 1
    slot.refresh()
    slot.watch()
    try:
        promote_bundle(settings, made_bundle(0.1), 2)
        wait_for(lambda: decides(slot) == "2")
        promote_bundle(settings, made_bundle(), 1)
        wait_for(lambda: decides(slot) == "1")
    finally:
        slot.close()


def damage(bundle: Path) -> None:
    path = bundle / "classifier.onnx"
    path.write_bytes(path.read_bytes()[:-7])


def without_a_file(bundle: Path) -> None:
    (bundle / "detector.onnx").unlink()


def empty(bundle: Path) -> None:
    shutil.rmtree(bundle)
    bundle.mkdir()


@pytest.mark.parametrize("spoil", [damage, without_a_file, empty])
def test_a_bundle_that_is_not_whole_is_refused_and_tried_again_later(
    slot: ModelSlot, fetched: Fetched, settings: Settings, spoil: Callable[[Path], None]
):
    slot.refresh()
    promotion = promote_bundle(settings, made_bundle(0.1), 2)
    place = settings.bundles_dir / promotion.fingerprint[:16]
    fetched._fetch = lambda version, fingerprint: place
    spoil(place)
    assert slot.refresh() is False
    assert slot.refused is not None
    assert (slot.refused.version, slot.refused.fingerprint) == (2, promotion.fingerprint)
    assert slot.refused.reason
    assert (decides(slot), slot.refusals["champion"], fetched.versions) == ("1", 1, [1, 2])
    slot.refresh()
    assert fetched.versions == [1, 2]
    shutil.rmtree(place)
    shutil.copytree(made_bundle(0.1), place)
    forget_refusals(slot)
    assert slot.refresh() is True
    assert (decides(slot), fetched.versions) == ("2", [1, 2, 2])
    assert refused(slot) is None


def test_a_bundle_with_another_content_than_was_promoted_is_refused(
    slot: ModelSlot, fetched: Fetched, settings: Settings
):
    slot.refresh()
    promote_bundle(settings, made_bundle(0.1), 2)
    fetched._fetch = lambda version, fingerprint: made_bundle()
    slot.refresh()
    assert slot.refused is not None
    assert "is not what was registered as version 2" in slot.refused.reason
    assert "fraud models rollback" in slot.refused.reason
    assert decides(slot) == "1"


def test_a_bundle_that_needs_features_we_do_not_compute_is_refused_by_their_names(
    slot: ModelSlot, fetched: Fetched, settings: Settings, tmp_path: Path
):
    slot.refresh()
    files, _ = read_directory(made_bundle(0.1))  # as a newer version's would be: whole, with a feature we have not got
    files["bundle.json"] = files["bundle.json"].replace(b"amount_log", b"amount_lug")
    strange = write_directory(tmp_path, files)
    promotion = append_promotion(settings.ledger_url, 2, read_directory(strange)[1])
    fetched._fetch = lambda version, fingerprint: strange
    slot.refresh()
    assert slot.refused is not None
    assert slot.refused.fingerprint == promotion.fingerprint
    assert "amount_lug" in slot.refused.reason
    assert decides(slot) == "1"


def test_a_rollback_from_a_refused_version_clears_the_refusal(slot: ModelSlot, fetched: Fetched, settings: Settings):
    slot.refresh()
    fetched.problem = DependencyError("MLflow is away")
    append_promotion(settings.ledger_url, 2, "f" * 64)
    slot.refresh()
    assert slot.refused is not None
    promote_bundle(settings, made_bundle(), 1)
    assert slot.refresh() is True
    assert decides(slot) == "1"
    assert refused(slot) is None


@pytest.mark.parametrize("problem", [DependencyError("MLflow is away"), OSError("no space left"), ValueError("odd")])
def test_a_fetch_that_fails_is_a_refusal_with_its_reason(
    slot: ModelSlot, fetched: Fetched, settings: Settings, problem: Exception
):
    slot.refresh()
    fetched.problem = problem
    promote_bundle(settings, made_bundle(0.1), 2)
    slot.refresh()
    assert slot.refused is not None
    assert str(problem) in slot.refused.reason
    assert decides(slot) == "1"
    fetched.problem = None
    forget_refusals(slot)
    slot.refresh()
    assert decides(slot) == "2"


def test_without_its_ledger_the_old_model_goes_on(slot: ModelSlot, ledger: Ledger, settings: Settings):
    slot.refresh()
    with ledger.database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE promotions RENAME TO elsewhere")
    assert slot.refresh() is False
    assert "does not answer" in slot.ledger_error
    assert decides(slot) == "1"
    with ledger.database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO promotions")
    promote_bundle(settings, made_bundle(0.1), 2)
    assert slot.refresh() is True
    assert (slot.ledger_error, decides(slot)) == ("", "2")


def test_a_ledger_without_promotions_leaves_the_place_empty(tmp_path: Path):
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        slot = ModelSlot(ledger, lambda version, fingerprint: tmp_path, now=lambda: HISTORY_END)
        assert slot.refresh() is False
        assert (decides(slot), slot.refused, slot.ledger_error) == (None, None, "")


def test_a_hand_deleted_champion_goes_on_where_it_is_loaded_and_is_stood_in_for_after_a_start(
    slot: ModelSlot, fetched: Fetched, ledger: Ledger, settings: Settings
):
    promotion = promote_bundle(settings, made_bundle(0.1), 2)
    slot.refresh()
    gone = settings.bundles_dir / promotion.fingerprint[:16]
    kept = gone.rename(settings.home / "kept")
    assert slot.refresh() is False
    assert decides(slot) == "2", "who has it loaded goes on"

    fetched._fetch = lambda version, fingerprint: settings.bundles_dir / fingerprint[:16]
    started = ModelSlot(ledger, fetched, now=lambda: HISTORY_END)
    assert started.refresh() is True
    assert decides(started) == "1"
    assert started.refused is not None
    assert (started.refused.version, started.refusals["champion"]) == (2, 1)
    assert started.refresh() is False, "not before RETRY_S"
    kept.rename(gone)
    forget_refusals(started)
    assert started.refresh() is True
    assert (decides(started), refused(started)) == ("2", None)


def test_what_was_rolled_back_stands_in_for_nobody(fetched: Fetched, ledger: Ledger, settings: Settings):
    first = ledger.current_promotion()
    assert first is not None
    second = promote_bundle(settings, made_bundle(0.1), 2)
    back = replace(first, promotion_id=3, previous_id=2, kind="rollback", previous_version=2)
    ledger.append_promotion(back)
    shutil.rmtree(settings.bundles_dir / first.fingerprint[:16])
    fetched._fetch = lambda version, fingerprint: settings.bundles_dir / fingerprint[:16]
    started = ModelSlot(ledger, fetched, now=lambda: HISTORY_END)
    assert started.refresh() is False
    assert (decides(started), second.version) == (None, 2)
    assert started.refused is not None


def test_a_challenger_has_its_share_of_the_customers_always_the_same(settings: Settings, ledger: Ledger):
    promoted = promote_bundle(settings, made_bundle(0.1), 2)
    promote_bundle(settings, made_bundle(), 1)
    slot = ModelSlot(ledger, Fetched(settings), now=lambda: HISTORY_END, challenger_share=0.3)
    slot.refresh()
    customers = [f"c{number}" for number in range(2_000)]
    assert all(slot.bundle_for(c).version == "1" for c in customers)  # type: ignore[union-attr]
    appoint(ledger, 2, promoted.fingerprint)
    slot.refresh()
    chosen = [c for c in customers if slot.bundle_for(c).version == "2"]  # type: ignore[union-attr]
    assert chosen == [c for c in customers if in_challenger_share(c, 0.3)]
    assert 0.26 < len(chosen) / len(customers) < 0.34
    assert set(chosen) > {c for c in customers if in_challenger_share(c, 0.1)}
    appoint(ledger, None, None)
    slot.refresh()
    assert slot.bundle_for(chosen[0]).version == "1"  # type: ignore[union-attr]


def test_a_refused_challenger_leaves_everything_to_the_champion(settings: Settings, ledger: Ledger):
    fetched = Fetched(settings)
    slot = ModelSlot(ledger, fetched, now=lambda: HISTORY_END, challenger_share=1.0)
    slot.refresh()
    fetched.problem = DependencyError("MLflow is away")
    appoint(ledger, 2, "f" * 64)
    slot.refresh()
    assert decides(slot) == "1"
    assert slot.refused_challenger is not None
    assert (slot.refused_challenger.version, slot.refusals) == (2, {"champion": 0, "challenger": 1})


def test_a_bundle_of_the_home_is_found_by_either_name(settings: Settings, tmp_path: Path):
    fingerprint = read_directory(made_bundle())[1]
    assert local_bundle(settings.bundles_dir, 1, fingerprint) == settings.bundles_dir / fingerprint[:16]
    fetched = settings.bundles_dir / f"9-{fingerprint[:16]}"
    shutil.copytree(made_bundle(), fetched)
    assert local_bundle(settings.bundles_dir, 9, fingerprint) == fetched
    damage(fetched)
    assert local_bundle(settings.bundles_dir, 9, fingerprint) == settings.bundles_dir / fingerprint[:16]
    assert local_bundle(tmp_path / "nowhere", 1, fingerprint) is None
