"""Parameters that make no sense are refused by name, with the remedy."""

from datetime import date

import pytest

from fraud_pipeline.domain.simulation_config import DRIFT_KINDS, Drift, WorldConfig
from fraud_pipeline.errors import InputError

END = date(2026, 4, 1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"customers": 0}, "customers = 0"),
        ({"customers": 1.5}, "customers = 1.5"),
        ({"merchants": 9}, "merchants = 9"),
        ({"days": 0}, "days = 0"),
        ({"rate": -1.0}, "rate = -1.0"),
        ({"rate": float("nan")}, "rate = nan"),
        ({"fraud_rate": -0.01}, "fraud_rate = -0.01"),
        ({"fraud_rate": 0.51}, "fraud_rate = 0.51"),
        ({"seed": -1}, "seed = -1"),
        ({"unlabelled_share": 1.2}, "unlabelled_share = 1.2"),
        ({"label_delay_days": (5, 2)}, "label_delay_days"),
        ({"label_delay_days": (-1, 2)}, "label_delay_days"),
        ({"label_delay_days": (1,)}, "label_delay_days"),
        ({"drifts": (Drift("inflation", END),)}, "inflation@2026-04-01"),
        ({"drifts": (Drift("inflation", date(2025, 1, 1)),)}, "inflation@2025-01-01"),
        ({"drifts": (Drift("magic", date(2026, 3, 1)),)}, "magic@2026-03-01"),
        ({"drifts": (Drift("covid", date(2026, 3, 1)), Drift("covid", date(2026, 3, 2)))}, "covid@2026-03-02"),
    ],
)
def test_what_makes_no_sense_is_named(changes, named):
    with pytest.raises(InputError) as raised:
        WorldConfig(end=END, **changes)
    assert named in raised.value.message
    assert raised.value.remedy.startswith(f"Choose another {next(iter(changes))}")


@pytest.mark.parametrize("kind", DRIFT_KINDS)
def test_a_drift_is_written_as_kind_at_date(kind):
    drift = Drift.parse(f"{kind}@2026-03-01")
    assert drift == Drift(kind, date(2026, 3, 1))
    assert str(drift) == f"{kind}@2026-03-01"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("inflation", "no date"), ("war@2026-03-01", "'war'"), ("covid@soon", "'soon'"), ("covid@2026-02-30", "2026-02-30"), ("", "''")],
)  # fmt: skip
def test_a_drift_that_cannot_be_read_says_why(text, wrong):
    with pytest.raises(InputError, match=wrong) as raised:
        Drift.parse(text)
    assert "KIND@YYYY-MM-DD" in raised.value.remedy


def test_parameters_hold_all_that_the_world_follows_from():
    drift = Drift("covid", date(2026, 3, 1))
    config = WorldConfig(end=END, drifts=(drift,))
    assert config.start == date(2025, 12, 2)
    assert config.parameters() == {
        "world_version": 1,
        "start": "2025-12-02",
        "end": "2026-04-01",
        "customers": 1500,
        "merchants": 600,
        "days": 120,
        "rate": 1.7,
        "fraud_rate": 0.006,
        "seed": 42,
        "label_delay_days": [1.0, 30.0],
        "unlabelled_share": 0.05,
        "drifts": ["covid@2026-03-01"],
        "currency": "USD",
    }
