"""No library of ours reports to its makers: every one of them is told so before it is imported.

Called first by every entry point. Must import nothing but the standard library.
"""

from __future__ import annotations

import os

SWITCHES = {
    "DO_NOT_TRACK": "true",  # Evidently (any value), MLflow ("true"), and the common convention
    "ITERATIVE_DO_NOT_TRACK": "true",  # the reporter inside Evidently
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DAGSTER_DISABLE_TELEMETRY": "yes",  # beside `telemetry: enabled: false` in every dagster.yaml
    "BENTOML_DO_NOT_TRACK": "True",  # compared with "true" after lower()
    "GX_ANALYTICS_ENABLED": "false",
}


def disable() -> None:
    """Switch telemetry off for this process and its children; a value that someone set on purpose stays."""
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
