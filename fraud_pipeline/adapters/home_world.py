"""The simulated world of a home, to be told again or to go on: the parameters it was landed with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.domain.simulation_config import Drift, WorldConfig


def world_of_home(home: Path, otherwise: WorldConfig) -> WorldConfig:
    """What the home's simulated world was made from; `otherwise` where it holds none."""
    store = SourceStore(home)
    if not store.exists() or (world := store.manifest()).kind != "simulation":
        return otherwise
    made = {field.name: world.parameters[field.name] for field in fields(WorldConfig) if field.name in world.parameters}
    made["drifts"] = tuple(Drift.parse(text) for text in made["drifts"])
    made["label_delay_days"] = tuple(made["label_delay_days"])
    return WorldConfig(**{**made, "end": world.end})


def changed_world(
    config: WorldConfig, changes: Mapping[str, Any], drifts: Sequence[str], *, further_days: int = 0
) -> WorldConfig:
    """The world with other parameters and more drifts (`KIND` or `KIND@DATE`), going on for `further_days`.

    A drift without a date begins with the first of these days, or of the world where there are none. Raises InputError.
    """
    first = config.end if further_days else config.start
    more = tuple(Drift.parse(text if "@" in text else f"{text}@{first}") for text in drifts)
    end = {"end": config.end + timedelta(days=further_days), "days": config.days + further_days}
    return replace(config, drifts=(*config.drifts, *more), **{**end, **changes})
