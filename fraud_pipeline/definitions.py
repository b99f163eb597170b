"""The Dagster code location: everything in `defs/`, with the days of the world that the home holds."""

from collections.abc import Mapping
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from fraud_pipeline import telemetry
from fraud_pipeline.settings import Settings, load_settings


@dg.definitions
def defs() -> dg.Definitions:
    """Load the code location; nothing is loaded before it is asked for."""
    return load_definitions(load_settings())


def load_definitions(settings: Settings, *, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The graph as it is for one home; tests pass resources of their own. A world that lands later shows after a reload."""
    telemetry.disable()
    loaded = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    from fraud_pipeline.defs.partitions import fit_days, has_stream
    from fraud_pipeline.defs.resources import resources_for

    return dg.Definitions(
        assets=fit_days(
            loaded.assets or (), home=settings.home, today=datetime.now(UTC).date(), stream=has_stream(settings)
        ),
        asset_checks=loaded.asset_checks,
        jobs=loaded.jobs,
        schedules=loaded.schedules,
        sensors=[_looking_every(settings.sensor_interval_s, sensor) for sensor in loaded.sensors or ()],
        resources=resources_for(settings) if resources is None else resources,
        executor=dg.in_process_executor,  # ten steps cost 1.5 s in the run's own process, and 28 s in one each
    )


def _looking_every(seconds: int, sensor: dg.SensorDefinition) -> dg.SensorDefinition:
    """The sensor with the home's interval; those that follow the ends of runs keep their own."""
    if isinstance(sensor, dg.RunStatusSensorDefinition):
        return sensor
    fitted = copy(sensor)
    fitted._min_interval = seconds  # Dagster 1.13 has no way to give a sensor another interval
    return fitted
