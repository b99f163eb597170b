from pathlib import Path

import pytest

from fraud_pipeline.adapters.model_store import SETS_KEPT, ModelStore
from fraud_pipeline.errors import IntegrityError, NotFound


def test_a_model_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.write("set1", "xgboost_model", {"trees": 3}, options={"seed": 1})
    assert store.read("set1", "xgboost_model", options={"seed": 1}) == {"trees": 3}


def test_a_model_of_other_options_or_none_is_not_there(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    with pytest.raises(NotFound, match="There is no xgboost_model for training set set1"):
        store.read("set1", "xgboost_model")
    store.write("set1", "xgboost_model", 1, options={"seed": 1})
    with pytest.raises(NotFound, match="fitted with other options"):
        store.read("set1", "xgboost_model", options={"seed": 2})


def test_a_damaged_model_is_never_unpickled(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    path = store.write("set1", "xgboost_model", 1, options={})
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"is damaged.*Materialize `xgboost_model` again"):
        store.read("set1", "xgboost_model")


def test_models_of_old_training_sets_are_forgotten(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for number in range(SETS_KEPT + 2):
        store.write(f"set{number}", "xgboost_model", number, options={})
    assert len(list(store.folder.iterdir())) == SETS_KEPT
    assert store.read(f"set{SETS_KEPT + 1}", "xgboost_model") == SETS_KEPT + 1
