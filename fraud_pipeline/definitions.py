"""The Dagster code location: everything in `defs/`, with the days of the world that the home holds."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from fraud_pipeline import telemetry
from fraud_pipeline.settings import Settings, load_settings


@dg.definitions
def defs() -> dg.Definitions:
    """Load the code location; nothing is loaded before it is asked for."""
    return load_definitions(load_settings())


def load_definitions(settings: Settings) -> dg.Definitions:
    """The graph as it is for one home. A world that lands later shows its days after a reload."""
    telemetry.disable()
    from fraud_pipeline.defs.partitions import fit_days

    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return fit_days(loaded, home=settings.home, today=datetime.now(UTC).date())
