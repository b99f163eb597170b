"""A bundle as an MLflow pyfunc model: `mlflow.pyfunc.load_model("models:/fraud-detector@champion")`.

MLflow finds this module by the name in the version's `MLmodel` file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fraud_pipeline.domain.bundle import ModelBundle

if TYPE_CHECKING:
    import pandas as pd


class BundleModel:
    """Scores input vectors. It computes no features: they need the state, which a service has."""

    def __init__(self, bundle: ModelBundle) -> None:
        self.bundle = bundle

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Raw score, calibrated probability and anomaly score of rows with the bundle's inputs as columns (or a subset,
        the rest is missing).
        """
        import pandas as pd

        del params
        columns = model_input.reindex(columns=list(self.bundle.input_names))
        scores = self.bundle.score(np.ascontiguousarray(columns.to_numpy(dtype=np.float32, na_value=np.nan)))
        return pd.DataFrame(
            {"raw_score": scores.raw, "fraud_probability": scores.probability, "anomaly_score": scores.anomaly},
            index=model_input.index,
        )


def _load_pyfunc(path: str) -> BundleModel:
    return BundleModel(ModelBundle.load(Path(path)))
