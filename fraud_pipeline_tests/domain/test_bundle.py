"""A bundle on disk: whole, verified, independent of batches, and refused with the file's name where it is damaged."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from fraud_pipeline.adapters.bundle_export import MAX_REFERENCE_ROWS, served_difference
from fraud_pipeline.domain import bundle_files
from fraud_pipeline.domain.bundle import FILES, ModelBundle, npz_arrays, npz_bytes
from fraud_pipeline.domain.feature_spec import FEATURES
from fraud_pipeline.domain.model_input import ModelInput
from fraud_pipeline.domain.thresholds import thresholds_at
from fraud_pipeline.errors import BundleError, SchemaMismatch, TrainingDataError
from fraud_pipeline_tests.bundles import (
    ISOTONIC,
    MADE_AT,
    METRICS,
    MODEL_INPUT,
    PLATT,
    boosted,
    detector,
    forest,
    lineage,
    loaded_bundle,
    medians,
    payments,
    write_bundle,
)


@pytest.fixture
def bundle_dir(tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    target = tmp_path / "copy"
    shutil.copytree(loaded_bundle().path, target)
    return target


def files_below(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def rewritten(path: Path, root: Path, **changed: bytes) -> Path:
    """The bundle with other content under a manifest that fits it: damage that no hash shows."""
    files = {name: (path / name).read_bytes() for name in FILES}
    return bundle_files.write_directory(root, {**files, **{name.replace("__", "."): c for name, c in changed.items()}})


@pytest.mark.parametrize("kind", ["xgboost", "random_forest"])
def test_served_scores_are_the_training_scores(kind: str) -> None:
    bundle, classifier = loaded_bundle(kind), boosted() if kind == "xgboost" else forest()
    values, _ = payments()
    assert served_difference(classifier, bundle, values) < 1e-5
    scores = bundle.score(values)
    np.testing.assert_allclose(scores.anomaly, detector().anomaly_score(values), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(scores.probability, PLATT.apply(scores.raw))


@pytest.mark.parametrize("kind", ["xgboost", "random_forest"])
def test_a_score_does_not_depend_on_its_batch(kind: str, tmp_path: Path) -> None:
    bundle = ModelBundle.load(write_bundle(tmp_path, kind, calibrator=ISOTONIC))
    values = payments()[0][:700]
    whole = bundle.score(values)
    for size in (1, 2, 3, 16, 17, 127, 128, 129, 400):
        parts = [bundle.score(values[start : start + size]) for start in range(0, len(values), size)]
        for name in ("raw", "probability", "anomaly"):
            joined = np.concatenate([getattr(part, name) for part in parts])
            assert joined.tobytes() == getattr(whole, name).tobytes(), (size, name)


def test_isotonic_probabilities_are_the_calibrators(tmp_path: Path) -> None:
    bundle = ModelBundle.load(write_bundle(tmp_path, calibrator=ISOTONIC))
    scores = bundle.score(payments()[0])
    np.testing.assert_array_equal(scores.probability, ISOTONIC.apply(scores.raw))


def test_facts_come_back_as_they_were_given(tmp_path: Path) -> None:
    bundle = ModelBundle.load(write_bundle(tmp_path))
    facts = bundle.facts
    assert (facts.kind, facts.n_trees, facts.created_at, facts.lineage) == ("xgboost", 60, MADE_AT, lineage())
    assert (facts.model_input, facts.calibrator, facts.thresholds) == (
        MODEL_INPUT,
        PLATT,
        thresholds_at(PLATT, review=0.2, block=0.6),
    )
    assert facts.metrics["evaluation"]["metrics"]["pr_auc"] == METRICS["evaluation"]["metrics"]["pr_auc"]  # type: ignore[index]
    assert facts.metrics["evaluation"]["metrics"]["recall_at_budget"]["low"] is None
    assert sum(facts.importance.values()) == pytest.approx(1)
    assert (bundle.version, len(bundle.fingerprint)) == (bundle.fingerprint[:12], 64)
    assert loaded_bundle().version == "7"
    assert loaded_bundle("random_forest").facts.medians == tuple(float(m) for m in medians())


def test_usual_values_are_the_references_quantiles() -> None:
    values = payments()[0][:500]
    known = values[:, 3][~np.isnan(values[:, 3])]
    usual = loaded_bundle().facts.usual
    assert (usual.low[3], usual.middle[3], usual.high[3]) == tuple(np.quantile(known, (0.1, 0.5, 0.9)))


def test_the_reference_holds_inputs_served_scores_and_labels() -> None:
    values, is_fraud = payments()
    reference = loaded_bundle().reference()
    np.testing.assert_array_equal(reference.values, values[:500])
    np.testing.assert_array_equal(reference.is_fraud, is_fraud[:500])
    np.testing.assert_array_equal(reference.raw, loaded_bundle().score(values[:500]).raw)


def test_a_large_reference_is_sampled_by_the_seed(tmp_path: Path) -> None:
    many = np.tile(payments()[0], (3, 1))
    labels = np.arange(len(many)) % 7 == 0
    paths = [write_bundle(tmp_path / side, reference_values=many, reference_is_fraud=labels) for side in "ab"]
    assert files_below(paths[0]) == files_below(paths[1])
    reference = ModelBundle.load(paths[0]).reference()
    assert len(reference.values) == len(reference.is_fraud) == MAX_REFERENCE_ROWS


def test_a_column_without_any_value_in_the_reference_is_no_obstacle(tmp_path: Path) -> None:
    values = payments()[0][:100].copy()
    values[:, 5] = np.nan
    path = write_bundle(tmp_path, reference_values=values, reference_is_fraud=np.zeros(100, dtype=bool))
    assert np.isnan(ModelBundle.load(path).facts.usual.high[5])


def test_the_same_content_is_the_same_directory_and_writing_it_again_changes_nothing(tmp_path: Path) -> None:
    first = write_bundle(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert write_bundle(tmp_path) == first
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p != tmp_path} == before
    assert write_bundle(tmp_path, created_at=MADE_AT + timedelta(days=1)) != first
    assert ModelBundle.load(first).fingerprint.startswith(first.name)


def test_a_damaged_directory_of_the_same_content_is_mended_by_writing_it_again(tmp_path: Path) -> None:
    path = write_bundle(tmp_path)
    (path / "trees.npz").unlink()
    assert write_bundle(tmp_path) == path
    ModelBundle.load(path)


def test_a_write_that_fails_in_the_middle_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = bundle_files._write
    written: list[Path] = []

    def full_disk(path: Path, content: bytes) -> None:
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        written.append(path)
        write(path, content)

    monkeypatch.setattr(bundle_files, "_write", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_bundle(tmp_path)
    assert len(written) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle_dir: Path, name: str) -> None:
    (bundle_dir / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        ModelBundle.load(bundle_dir)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(bundle_dir: Path, name: str) -> None:
    content = (bundle_dir / name).read_bytes()
    (bundle_dir / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=rf"{name} has \d+ bytes instead of {len(content)}"):
        ModelBundle.load(bundle_dir)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_named(bundle_dir: Path, name: str) -> None:
    content = bytearray((bundle_dir / name).read_bytes())
    content[len(content) // 3] ^= 1
    (bundle_dir / name).write_bytes(bytes(content))
    with pytest.raises(BundleError, match=f"{name} was altered") as raised:
        ModelBundle.load(bundle_dir)
    assert "registry" in raised.value.remedy


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": 1, "files": {}, "fingerprint": "00"}'])
def test_a_manifest_that_is_none_is_refused(bundle_dir: Path, content: bytes) -> None:
    (bundle_dir / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        ModelBundle.load(bundle_dir)


def test_a_manifest_cannot_name_files_outside(bundle_dir: Path) -> None:
    manifest = json.loads((bundle_dir / "manifest.json").read_bytes())
    manifest["files"]["../bundle.json"] = manifest["files"].pop("bundle.json")
    manifest["fingerprint"] = bundle_files._fingerprint(manifest["files"])
    (bundle_dir / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"\.\./bundle\.json, which lies outside"):
        ModelBundle.load(bundle_dir)


def test_a_directory_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BundleError, match=r"manifest\.json is missing"):
            ModelBundle.load(path)


def test_a_bundle_of_another_format_is_refused(bundle_dir: Path, tmp_path: Path) -> None:
    stored = json.loads((bundle_dir / "bundle.json").read_bytes())
    path = rewritten(bundle_dir, tmp_path / "new", bundle__json=json.dumps({**stored, "format": 2}).encode())
    with pytest.raises(BundleError, match=r"bundle\.json cannot be used: its format is 2"):
        ModelBundle.load(path)


def test_facts_without_a_part_and_models_that_are_none_are_named(bundle_dir: Path, tmp_path: Path) -> None:
    stored = json.loads((bundle_dir / "bundle.json").read_bytes())
    del stored["thresholds"]
    with pytest.raises(BundleError, match=r"bundle\.json cannot be used: 'thresholds'"):
        ModelBundle.load(rewritten(bundle_dir, tmp_path / "a", bundle__json=json.dumps(stored).encode()))
    with pytest.raises(BundleError, match=r"classifier\.onnx or detector\.onnx cannot be used"):
        ModelBundle.load(rewritten(bundle_dir, tmp_path / "b", detector__onnx=b"no model"))
    with pytest.raises(BundleError, match=r"trees\.npz cannot be used: it is no npz"):
        ModelBundle.load(rewritten(bundle_dir, tmp_path / "c", trees__npz=b"no archive"))


def test_a_model_that_scores_otherwise_than_when_it_was_made_fails_its_self_test(
    bundle_dir: Path, tmp_path: Path
) -> None:
    selftest = npz_arrays((bundle_dir / "selftest.npz").read_bytes())
    selftest["raw"] = selftest["raw"] + np.float32(1e-4)
    with pytest.raises(BundleError, match="raw differs from its self-test"):
        ModelBundle.load(rewritten(bundle_dir, tmp_path / "a", selftest__npz=npz_bytes(selftest)))
    trees = npz_arrays((bundle_dir / "trees.npz").read_bytes())
    trees["base"] = trees["base"] + 1e-2
    with pytest.raises(BundleError, match=r"trees\.npz does not belong to classifier\.onnx"):
        ModelBundle.load(rewritten(bundle_dir, tmp_path / "b", trees__npz=npz_bytes(trees)))
    trees["feature"][0] = len(MODEL_INPUT.names)
    with pytest.raises(BundleError, match=r"trees\.npz cannot be used: it asks about inputs"):
        ModelBundle.load(rewritten(bundle_dir, tmp_path / "c", trees__npz=npz_bytes(trees)))


def test_code_that_computes_a_feature_otherwise_refuses_the_bundle_and_newer_code_serves_it() -> None:
    path = loaded_bundle().path
    changed = [dataclasses.replace(f, revision=f.revision + 1) if f.name == "hour" else f for f in FEATURES]
    with pytest.raises(SchemaMismatch, match="computes feature hour differently"):
        ModelBundle.load(path, features=changed)
    with pytest.raises(SchemaMismatch, match="needs feature hour, which"):
        ModelBundle.load(path, features=[f for f in FEATURES if f.name != "hour"])
    ModelBundle.load(path, features=[dataclasses.replace(FEATURES[0], name="brand_new"), *FEATURES])


def test_thresholds_chosen_anew_make_a_new_bundle_of_the_same_models(tmp_path: Path) -> None:
    old = loaded_bundle()
    before = files_below(old.path)
    wanted = thresholds_at(PLATT, review=0.3, block=0.7)
    new = ModelBundle.load(old.with_thresholds(wanted, tmp_path, created_at=MADE_AT + timedelta(days=3)))
    assert files_below(old.path) == before
    assert (new.thresholds, new.facts.lineage.derived_from) == (wanted, old.fingerprint)
    assert new.fingerprint != old.fingerprint
    assert new.facts.metrics == old.facts.metrics
    assert (new.path / "classifier.onnx").read_bytes() == before["classifier.onnx"]
    assert f"`{old.fingerprint}`" in (new.path / "model_card.md").read_text()


def test_vectors_of_another_width_or_type_are_refused() -> None:
    values = payments()[0][:2]
    for wrong in (values[:, 1:], values.astype(np.float64), values[0]):
        with pytest.raises(ValueError, match="the models read float32"):
            loaded_bundle().score(wrong)  # type: ignore[arg-type]


def test_models_of_other_inputs_than_the_bundles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"classifier was trained on 65 inputs .* not the bundle's 62"):
        write_bundle(tmp_path, model_input=ModelInput.of())
    with pytest.raises(TrainingDataError, match="reference has 0 payments"):
        write_bundle(tmp_path, reference_values=payments()[0][:0], reference_is_fraud=payments()[1][:0])
    assert list(tmp_path.iterdir()) == []
