"""ModelBundle: what is trained, gated, promoted, served and rolled back as one unit.

A directory of the classifier and the anomaly detector as they are served (ONNX), the trees for the reasons, and everything
that gives a score its meaning. Loading needs numpy, numba and ONNX Runtime and no training library; each file is verified
first. This module and `bundle_files` are the domain's one place that touches files.

    bundle.json      facts: inputs with definition hashes, thresholds, calibrator, lineage, metrics of both models
    classifier.onnx  detector.onnx
    trees.npz        the classifier's trees, for reasons
    reference.npz    the newest mature days: inputs, scores, labels; what drift is measured against
    selftest.npz     input vectors and the scores they had when the bundle was made
    model_card.md
    manifest.json    SHA-256 of each; the fingerprint is the hash over those
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.domain.bundle_facts import BundleFacts
from fraud_pipeline.domain.bundle_files import read_directory, write_directory
from fraud_pipeline.domain.feature_spec import FEATURES, Feature
from fraud_pipeline.domain.model_card import model_card
from fraud_pipeline.domain.model_input import InputAssembler
from fraud_pipeline.domain.reasons import RiskTable
from fraud_pipeline.domain.scoring import Scorer, Scores
from fraud_pipeline.domain.thresholds import Thresholds
from fraud_pipeline.domain.tree_ensemble import TreeEnsemble
from fraud_pipeline.domain.tree_kernels import Walk, path_contributions
from fraud_pipeline.errors import BundleError

FACTS: Final = "bundle.json"
CLASSIFIER: Final = "classifier.onnx"
DETECTOR: Final = "detector.onnx"
TREES: Final = "trees.npz"
REFERENCE: Final = "reference.npz"
SELFTEST: Final = "selftest.npz"
CARD: Final = "model_card.md"
FILES: Final = (FACTS, CLASSIFIER, DETECTOR, TREES, REFERENCE, SELFTEST, CARD)

SELFTEST_TOLERANCE: Final = 1e-6
"""Relative to a score of 1 or more: another machine or ONNX Runtime may round otherwise, and no further."""
WALK_TOLERANCE: Final = 1e-4
"""The walker sums in float64 what ONNX Runtime sums in float32."""
_REMEDY: Final = "Fetch the version again from the registry, or make the bundle anew."


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """m payments of the newest mature days: inputs float32 [m, F'], the served model's scores, and the labels."""

    values: NDArray[np.float32]
    raw: NDArray[np.float32]
    probability: NDArray[np.float64]
    anomaly: NDArray[np.float64]
    is_fraud: NDArray[np.bool_]

    def to_npz(self) -> bytes:
        return npz_bytes({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_npz(cls, content: bytes) -> Reference:
        return cls(**npz_arrays(content))


class ModelBundle:
    """A loaded bundle. Immutable, and safe to share between threads."""

    def __init__(
        self, *, path: Path, fingerprint: str, version: str, facts: BundleFacts, scorer: Scorer, walk: Walk,
        features: Sequence[Feature],
    ) -> None:  # fmt: skip
        """Use `load`. `features` is what the code computes, in order."""
        self.path = path
        self.fingerprint = fingerprint
        self.version = version
        self.facts = facts
        self.scorer = scorer
        self.walk = walk
        self.inputs = InputAssembler(facts.model_input, features)
        self.input_names = facts.model_input.names
        self.feature_schema = facts.model_input.schema_hash
        self.risk_table = RiskTable.of(self.input_names, facts.usual)

    @property
    def thresholds(self) -> Thresholds:
        return self.facts.thresholds

    @classmethod
    def load(cls, path: Path, *, version: str | None = None, features: Sequence[Feature] = FEATURES) -> ModelBundle:
        """Read, verify and try out a bundle.

        `version` is the name that decisions carry; without one they carry the first 12 digits of the fingerprint. Raises
        BundleError naming the file that is missing or damaged, SchemaMismatch naming the features that this code does not
        compute as the bundle needs them.
        """
        files, fingerprint = read_directory(path)
        if missing := [name for name in FILES if name not in files]:
            raise BundleError(f"Bundle {path}: {missing[0]} is missing from its manifest.", remedy=_REMEDY)
        reading = FACTS
        try:
            facts = BundleFacts.from_json(files[FACTS])
            reading = f"{CLASSIFIER} or {DETECTOR}"
            scorer = Scorer(files[CLASSIFIER], files[DETECTOR], facts.calibrator)
            reading = TREES
            trees = TreeEnsemble.from_arrays(npz_arrays(files[TREES]))
            if trees.feature.max() >= len(facts.model_input.names):
                raise ValueError("it asks about inputs that the bundle does not have")
            reading = SELFTEST
            expected = npz_arrays(files[SELFTEST])
        except BundleError:
            raise
        except Exception as err:  # whatever a library raises on content it cannot read, the file is what is wrong
            raise BundleError(f"Bundle {path}: {reading} cannot be used: {err}", remedy=_REMEDY) from err
        bundle = cls(
            path=path,
            fingerprint=fingerprint,
            version=version or fingerprint[:12],
            facts=facts,
            scorer=scorer,
            walk=Walk.of(trees),
            features=features,
        )
        bundle._try_out(expected)
        return bundle

    def score(self, values: NDArray[np.float32]) -> Scores:
        """Score input vectors float32 [n, F'] (see `inputs`)."""
        return self.scorer.score(values)

    def contributions(self, vector: NDArray[np.float32]) -> NDArray[np.float64]:
        """[F' + 1]: what each input adds to the raw score of one vector [F'], and last the bias."""
        return path_contributions(self.walk, vector)

    def reference(self) -> Reference:
        """The drift reference, read from the directory at each call."""
        return Reference.from_npz(read_directory(self.path)[0][REFERENCE])

    def model_card(self) -> str:
        """The model card, in Markdown."""
        return model_card(self.facts)

    def with_thresholds(
        self, thresholds: Thresholds, root: Path, *, created_at: datetime, metrics: Mapping[str, Any] | None = None
    ) -> Path:
        """Write the same models with other thresholds as a new bundle under `root`; its directory.

        `metrics` are the numbers at the new thresholds; without them the old ones stay, which then say nothing of value.
        """
        files, _ = read_directory(self.path)
        lineage = replace(self.facts.lineage, derived_from=self.fingerprint)
        facts = replace(
            self.facts,
            thresholds=thresholds,
            lineage=lineage,
            created_at=created_at,
            metrics=metrics or self.facts.metrics,
        )
        return write_directory(root, {**files, FACTS: facts.to_json(), CARD: model_card(facts).encode()})

    def _try_out(self, expected: Mapping[str, NDArray[Any]]) -> None:
        """Score the stored vectors. Also the warm-up: the first payment is not the slow one."""
        values = expected["values"]
        if values.shape[1:] != (self.scorer.width,) or self.scorer.width != len(self.input_names):
            raise BundleError(f"Bundle {self.path}: its files are of different inputs.", remedy=_REMEDY)
        scores = self.score(values)
        for name in ("raw", "probability", "anomaly"):
            difference = np.abs(getattr(scores, name) - expected[name]) / np.maximum(1.0, np.abs(expected[name]))
            if not np.all(difference <= SELFTEST_TOLERANCE):
                message = f"Bundle {self.path}: {name} differs from its self-test by {np.nanmax(difference):.2g}."
                raise BundleError(message, remedy=_REMEDY)
        walked = np.array([self.contributions(vector).sum() for vector in values])
        if not np.allclose(walked, scores.raw, rtol=0, atol=WALK_TOLERANCE):
            raise BundleError(f"Bundle {self.path}: {TREES} does not belong to {CLASSIFIER}.", remedy=_REMEDY)


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Arrays as a compressed npz: the same bytes for the same arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()


def npz_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The reverse of `npz_bytes`; ValueError where it is not one."""
    file = io.BytesIO(content)
    if not zipfile.is_zipfile(file):  # numpy would take it for a pickle
        raise ValueError("it is no npz file")
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (zipfile.BadZipFile, EOFError) as err:
        raise ValueError(f"it is no npz file: {err}") from err
