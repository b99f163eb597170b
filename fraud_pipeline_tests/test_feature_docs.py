"""docs/features.md says what the spec says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud_pipeline.domain.feature_spec import FEATURES, KEPT_EVENTS, PRIOR_RATE, PRIOR_STRENGTH
from fraud_pipeline.errors import InputError
from fraud_pipeline.feature_docs import generated, main, with_generated

PAGE = Path(__file__).parents[1] / "docs" / "features.md"


def test_the_committed_page_is_current() -> None:
    text = PAGE.read_text("utf-8")
    assert with_generated(text) == text, "run: python -m fraud_pipeline.feature_docs"


def test_every_feature_has_its_row_once() -> None:
    rows = [line.split("|")[1].strip() for line in generated().splitlines() if line.startswith("| `")]
    assert rows[: len(FEATURES)] == [f"`{feature.name}`" for feature in FEATURES]


def test_the_prose_names_the_constants_as_they_are() -> None:
    text = PAGE.read_text("utf-8")
    assert f"(frauds + {PRIOR_STRENGTH:g} * {PRIOR_RATE:g}) / (matured payments + {PRIOR_STRENGTH:g})" in text
    assert f"{KEPT_EVENTS:,}" in text


@pytest.mark.parametrize(
    "name",
    [
        *(
            "amount",
            "amount_zscore",
            "user_avg_amount_30d",
            "user_txn_count_1h",
            "user_txn_count_24h",
            "user_txn_count_7d",
        ),
        *("user_amount_sum_1h", "user_amount_sum_24h", "unique_countries_24h", "unique_merchants_24h"),
        *("country_change_flag", "device_change_flag", "user_merchant_first_time", "hour_of_day", "day_of_week"),
        *("is_weekend", "is_night", "minutes_since_last_txn"),
    ],
)
def test_every_feature_of_the_replaced_system_has_its_name_here(name: str) -> None:
    aliases = [alias for feature in FEATURES for alias in feature.aliases]
    assert aliases.count(name) == 1


def test_a_page_without_markers_is_refused_and_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "features.md"
    page.write_text("# Features\n")
    with pytest.raises(InputError, match="lost its markers"):
        main(page)
    assert page.read_text() == "# Features\n"


def test_regenerating_changes_only_what_is_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "features.md"
    text = PAGE.read_text("utf-8")
    page.write_text(text.replace("| amount |", "| old |").replace("62 features", "3 features"), "utf-8")
    main(page)
    assert page.read_text("utf-8") == text
