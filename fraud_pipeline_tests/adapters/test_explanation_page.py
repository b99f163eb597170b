"""Exact explanations of whole bundles, and their picture."""

from __future__ import annotations

import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xgboost

from fraud_pipeline.adapters import explanation_page
from fraud_pipeline.adapters.explanation_page import SHOWN_FEATURES, exact_explanation, waterfall_png
from fraud_pipeline.domain.bundle import FILES, TREES, ModelBundle, npz_arrays, npz_bytes
from fraud_pipeline.domain.bundle_files import write_directory
from fraud_pipeline.domain.exact_explanation import Contribution, ExactExplanation
from fraud_pipeline.errors import BundleError, NotFound, SchemaMismatch
from fraud_pipeline_tests.bundles import MODEL_INPUT, boosted, loaded_bundle, payments


@pytest.fixture
def old_bundle(tmp_path: Path) -> ModelBundle:
    """As bundles were before they kept covers."""
    path = loaded_bundle().path
    files = {name: (path / name).read_bytes() for name in FILES}
    trees = npz_arrays(files[TREES])
    del trees["cover"]
    return ModelBundle.load(write_directory(tmp_path, {**files, TREES: npz_bytes(trees)}), version="3")


@pytest.mark.parametrize("kind", ["xgboost", "random_forest"])
def test_contributions_add_up_to_the_served_score(kind: str) -> None:
    bundle = loaded_bundle(kind)
    for vector in payments()[0][:50]:
        explanation = exact_explanation(bundle, vector)
        total = explanation.base_value + sum(c.contribution for c in explanation.contributions)
        assert total == pytest.approx(explanation.raw_score, abs=5e-6)
        assert explanation.raw_score == float(bundle.score(vector.reshape(1, -1)).raw[0])


def test_contributions_are_those_that_xgboost_gives_for_the_trained_model() -> None:
    vector = payments()[0][9]
    expected = boosted().model.predict(xgboost.DMatrix(vector.reshape(1, -1)), pred_contribs=True)[0]
    explanation = exact_explanation(loaded_bundle(), vector)
    found = {c.feature: c.contribution for c in explanation.contributions}
    np.testing.assert_allclose([found[name] for name in MODEL_INPUT.names], expected[:-1], rtol=0, atol=1e-5)
    assert explanation.base_value == pytest.approx(expected[-1], abs=1e-5)


def test_a_logged_vector_that_cannot_be_written_to_is_explained_alike() -> None:
    vector = payments()[0][3]
    logged = np.frombuffer(vector.tobytes(), dtype="<f4")
    assert not logged.flags.writeable
    assert exact_explanation(loaded_bundle(), logged) == exact_explanation(loaded_bundle(), vector)


def test_a_bundle_without_covers_loads_and_is_refused_where_an_exact_explanation_is_asked_for(
    old_bundle: ModelBundle,
) -> None:
    vector = payments()[0][3]
    assert old_bundle.score(vector.reshape(1, -1)).raw.shape == (1,)
    with pytest.raises(NotFound, match="Version 3 keeps no covers of its trees") as raised:
        exact_explanation(old_bundle, vector)
    assert "without --exact" in raised.value.remedy


def test_a_vector_of_other_inputs_is_refused() -> None:
    with pytest.raises(SchemaMismatch, match="64 inputs"):
        exact_explanation(loaded_bundle(), payments()[0][3][1:])


def test_a_bundle_whose_directory_is_gone_is_refused_by_name(tmp_path: Path) -> None:
    path = loaded_bundle().path
    copy = write_directory(tmp_path, {name: (path / name).read_bytes() for name in FILES})
    bundle = ModelBundle.load(copy)
    copy.rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=rf"{copy.name}: manifest\.json is missing"):
        exact_explanation(bundle, payments()[0][3])


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def explanation_of(*contributions: tuple[str, str, float], base: float = -4.0, **changes: object) -> ExactExplanation:
    """Made up, with these (name, text, contribution)."""
    made = ExactExplanation(
        model_version="7", score_unit="log-odds", base_value=base, raw_score=base + sum(c[2] for c in contributions),
        rounding=0.0, fraud_probability=0.07, review=-1.0, block=0.7,
        contributions=tuple(Contribution(name, None, text, added, "", "") for name, text, added in contributions),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["xgboost", "random_forest"])
def test_the_waterfall_is_a_png_of_a_readable_size(kind: str) -> None:
    png = waterfall_png(exact_explanation(loaded_bundle(kind), payments()[0][5]))
    assert size(png) == (935, 660)
    assert 10_000 < len(png) < 150_000


def test_the_rows_are_the_strongest_inputs_and_one_for_all_others_and_sum_to_the_score() -> None:
    explanation = exact_explanation(loaded_bundle(), payments()[0][5])
    rows = explanation_page._rows(explanation)
    assert len(rows) == SHOWN_FEATURES + 1
    strongest = explanation.contributions[0]
    assert rows[0] == (f"{strongest.feature} = {strongest.text}", strongest.contribution)
    assert rows[-1][0] == f"{len(MODEL_INPUT.names) - SHOWN_FEATURES} others"
    assert explanation.base_value + sum(added for _, added in rows) == pytest.approx(explanation.raw_score, abs=1e-12)


@pytest.mark.parametrize(
    "explanation",
    [
        explanation_of(),
        explanation_of(("amount", "3", 0.0)),
        explanation_of(("amount", "3", 1e-9), base=0.0, review=None, block=None),
        explanation_of(("amount", "3", 250.0), ("hour", "04:00", -260.0), review=-4.0, block=-4.0),
        explanation_of(
            ("attributes." + "x" * 64, "y" * 64, 1.0), ("$a_{", "$\\frac{1$", -0.5), ("名前", "支払い\x07", 0.2)
        ),
    ],
    ids=["nothing", "no effect", "hardly any", "huge", "odd names"],
)
def test_odd_explanations_are_drawn_too(explanation: ExactExplanation) -> None:
    width, height = size(waterfall_png(explanation))
    assert width == 935
    assert 200 <= height <= 700


def test_labels_are_cut_to_fit_and_hold_nothing_that_cannot_be_drawn() -> None:
    label = explanation_page._label("attributes." + "x" * 64, "y" * 64)
    assert len(label) == 46
    assert label.startswith("attributes.xxx")
    assert label.endswith("… = " + "y" * 22 + "…")
    assert explanation_page._label("$名前", "no") == r"\$?? = no"


def test_numbers_have_more_decimals_where_all_lies_close_together() -> None:
    assert explanation_page._signed(-1.61946, 7.0) == "−1.619"
    assert explanation_page._signed(0.25, 0.5) == "+0.250"
    assert explanation_page._signed(0.00012, 0.002) == "+0.00012"


def test_the_same_explanation_draws_the_same_picture_in_any_thread() -> None:
    explanation = exact_explanation(loaded_bundle(), payments()[0][5])
    expected = waterfall_png(explanation)
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(waterfall_png, [explanation] * 6)) == {expected}


def test_importing_it_loads_no_matplotlib() -> None:
    code = (
        "import fraud_pipeline.adapters.explanation_page, sys;"
        "sys.exit(any(m.split('.')[0] in ('matplotlib', 'xgboost', 'sklearn', 'pandas') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
