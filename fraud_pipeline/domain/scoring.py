"""The served models at work: input vectors to raw score, calibrated probability and anomaly score.

Knows nothing of files, features or decisions. The same bits come out whatever the batch: ONNX Runtime runs with one
intra-op thread (with two, 64 of 4,000 scores differed between batch sizes), and the rest is float64 by element.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fraud_pipeline.domain.calibration import Calibrator, Isotonic

SLICE: Final = 256
"""Rows that ONNX Runtime is given at once: no dearer each than 40 (3.8 µs), and the interpreter is given away less often."""
_LOG_ERRORS_ONLY: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """For n payments: `raw` float32 (ranks and thresholds use it), `probability` and `anomaly` float64 in 0..1."""

    raw: NDArray[np.float32]
    probability: NDArray[np.float64]
    anomaly: NDArray[np.float64]


class Scorer:
    """A classifier, an anomaly detector (both ONNX) and a calibrator. Safe to share between threads."""

    def __init__(self, classifier: bytes, detector: bytes, calibrator: Calibrator) -> None:
        self._classifier, self._detector = _session(classifier), _session(detector)
        self._calibrate = _compiled(calibrator)
        self._input = self._classifier.get_inputs()[0].name
        self.width = int(self._classifier.get_inputs()[0].shape[1])
        if self._detector.get_inputs()[0].shape[1] != self.width or self._detector.get_inputs()[0].name != self._input:
            raise ValueError("classifier and detector read different inputs")

    def score(self, values: NDArray[np.float32]) -> Scores:
        """Score float32 [n, width], NaN where missing."""
        if values.ndim != 2 or values.shape[1] != self.width or values.dtype != np.float32:
            raise ValueError(f"the models read float32 [n, {self.width}], not {values.dtype} {list(values.shape)}")
        raw, depth = self._walked(self._classifier, values), self._walked(self._detector, values)
        # 2^(-E[h(x)] / c(n)) of the Isolation Forest paper; the detector gives the exponent
        return Scores(raw, self._calibrate(raw), np.exp2(-depth.astype(np.float64)))

    def _walked(self, session: onnxruntime.InferenceSession, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The first output [n] of a model, in slices."""
        if len(values) <= SLICE:
            found: NDArray[np.float32] = session.run(None, {self._input: values})[0][:, 0]
            return found
        parts = [
            session.run(None, {self._input: values[start : start + SLICE]})[0] for start in range(0, len(values), SLICE)
        ]
        return np.concatenate(parts)[:, 0]


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_ERRORS_ONLY
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _compiled(calibrator: Calibrator) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """The calibrator's `apply`, with the knots of an isotonic one made arrays once rather than at each payment."""
    if not isinstance(calibrator, Isotonic):
        return calibrator.apply
    raw, probability = np.array(calibrator.raw), np.array(calibrator.probability)
    return lambda scores: np.interp(scores.astype(np.float64), raw, probability)
