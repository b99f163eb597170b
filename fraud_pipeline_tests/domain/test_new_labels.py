from __future__ import annotations

from datetime import date

import pytest

from fraud_pipeline.domain.new_labels import NewLabels, label_shortage

SINCE = date(2026, 3, 2)


@pytest.mark.parametrize(
    ("frauds", "days", "wanted", "said"),
    [
        (30, 5, 30, ""),
        (0, 0, 0, ""),
        (0, 0, 30, "0 of 30 new mature frauds are known: no day from 2026-03-02 on has mature labels yet."),
        (0, 3, 30, "0 of 30 new mature frauds are known, of the 3 days from 2026-03-02 on: more days of data are needed."),
        (
            12, 3, 30,
            "12 of 30 new mature frauds are known, of the 3 days from 2026-03-02 on: at 4.0 a day about 5 more days of data are needed.",
        ),
    ],
)  # fmt: skip
def test_a_shortage_is_told_with_its_numbers(frauds: int, days: int, wanted: int, said: str):
    assert label_shortage(NewLabels(frauds, days, SINCE), wanted=wanted) == said
