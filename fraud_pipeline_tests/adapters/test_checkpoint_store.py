from pathlib import Path

import pytest

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.errors import DependencyError, StateError


@pytest.fixture(params=["file", "memory"])
def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(f"file://{tmp_path / 'kept'}" if request.param == "file" else f"memory://{tmp_path.name}")


def test_what_was_written_is_read_again(checkpoints: CheckpointStore) -> None:
    checkpoints.write("history/a.state", b"state")
    assert checkpoints.read("history/a.state") == b"state"
    assert checkpoints.has("history/a.state")
    assert checkpoints.names("history") == ["a.state"]


def test_names_are_sorted_and_an_unknown_folder_has_none(checkpoints: CheckpointStore) -> None:
    for name in ("2026-02-01", "2026-01-01"):
        checkpoints.write(f"history/{name}", b"")
    assert checkpoints.names("history") == ["2026-01-01", "2026-02-01"]
    assert checkpoints.names("elsewhere") == []


def test_a_checkpoint_is_never_rewritten(checkpoints: CheckpointStore) -> None:
    checkpoints.write("a", b"first")
    checkpoints.write("a", b"second")
    assert checkpoints.read("a") == b"first"


def test_removing_twice_is_no_error(checkpoints: CheckpointStore) -> None:
    checkpoints.write("a", b"first")
    checkpoints.remove("a")
    checkpoints.remove("a")
    assert not checkpoints.has("a")


def test_a_missing_checkpoint_says_what_to_do(checkpoints: CheckpointStore) -> None:
    with pytest.raises(StateError, match=r"There is no checkpoint a.*Run `fraud run` again"):
        checkpoints.read("a")


def test_a_cut_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(f"file://{tmp_path}")
    checkpoints.write("a", b"a state of some length")
    (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:-3])
    with pytest.raises(StateError, match="damaged"):
        checkpoints.read("a")


def test_a_half_written_checkpoint_is_not_listed(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(f"file://{tmp_path}")
    checkpoints.write("history/a", b"whole")
    (tmp_path / "history" / ".b.0123").write_bytes(b"half")
    assert checkpoints.names("history") == ["a"]


def test_an_address_of_no_known_kind_is_an_unavailable_dependency() -> None:
    with pytest.raises(DependencyError, match="FRAUD_CHECKPOINT_URL"):
        CheckpointStore("nowhere://at/all").has("a")
