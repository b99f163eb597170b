"""Training sets: the rows, the labels as known at a moment, and the periods, kept under the fingerprint of all of it.

A training set is made once and read by every later step, also in another process; its features are mapped from disk and
not copied. Knows nothing of models or Dagster.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from fraud_pipeline.adapters.parquet_files import read_json, sync_path, write_error, write_json
from fraud_pipeline.adapters.training_rows import TrainingRows
from fraud_pipeline.domain.learning_data import LabelVersions, LearningData
from fraud_pipeline.domain.model_input import ModelInput
from fraud_pipeline.domain.splits import DayRange, Split
from fraud_pipeline.errors import IntegrityError, NotFound

FORMAT = 1
KEPT = 3
"""Newest training sets that stay on disk: each is about 250 bytes a payment."""

_NAMES = ("feature_names", "channel_names", "country_names", "category_names", "kind_names")
_ARRAYS = tuple(f.name for f in fields(LearningData) if f.name not in (*_NAMES, "label_versions"))
_VERSIONS = tuple(f.name for f in fields(LabelVersions))


@dataclass(frozen=True)
class TrainingSet:
    """What one training works on. `fingerprint` names rows, labels, periods and options; `lineage` says whence they come."""

    fingerprint: str
    data: LearningData
    split: Split
    model_input: ModelInput
    lineage: Mapping[str, Any]


def training_fingerprint(history: str, labels: Sequence[str], *, as_of: date, options: Mapping[str, Any]) -> str:
    """Names a training set: the history of its last day, the days of labels, the moment, and how it is made."""
    text = json.dumps([FORMAT, history, list(labels), as_of.isoformat(), dict(options)], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class TrainingStore:
    """Keeps training sets under `data/training_set/` of a home."""

    def __init__(self, home: Path) -> None:
        self.folder = Path(home) / "data" / "training_set"

    def has(self, fingerprint: str) -> bool:
        return (self.folder / fingerprint / "manifest.json").exists()

    def write(self, fingerprint: str, rows: TrainingRows, split: Split, *, lineage: Mapping[str, Any]) -> TrainingSet:
        """Keep a training set, whole or not at all, and forget old ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{fingerprint}-", dir=self.folder))
        try:
            _save(staging, rows.data)
            content = {
                "format": FORMAT,
                "fingerprint": fingerprint,
                "split": split.as_dict(),
                "names": {name: list(getattr(rows.data, name)) for name in _NAMES},
                "model_input": rows.model_input.as_dict(),
                "lineage": dict(lineage),
            }
            write_json(staging / "manifest.json", json.loads(json.dumps(content, default=str)))
            target = self.folder / fingerprint
            shutil.rmtree(target, ignore_errors=True)
            os.replace(staging, target)
            sync_path(self.folder)
        except OSError as err:
            raise write_error(err, self.folder / fingerprint) from err
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._forget(fingerprint)
        return self.read(fingerprint)

    def read(self, fingerprint: str) -> TrainingSet:
        """NotFound where there is none of that name, IntegrityError where it is damaged."""
        folder = self.folder / fingerprint
        if not self.has(fingerprint):
            raise NotFound(f"There is no training set {fingerprint}.", remedy="Materialize `training_set` again.")
        content = read_json(folder / "manifest.json")
        try:
            names = {name: tuple(values) for name, values in content["names"].items()}
            data = _load(folder, names)
            split = _split(content["split"])
            model_input = ModelInput.from_dict(content["model_input"])
        except (KeyError, TypeError, ValueError, OSError) as err:
            raise IntegrityError(
                f"The training set {folder} is damaged: {err}.",
                remedy="Remove it and materialize `training_set` again.",
            ) from err
        return TrainingSet(fingerprint, data, split, model_input, content["lineage"])

    def use(self, fingerprint: str) -> TrainingSet:
        """Read one that is there, and make it the newest again: what the next steps work on."""
        found = self.read(fingerprint)
        os.utime(self.folder / fingerprint / "manifest.json")
        return found

    def newest(self) -> str:
        """The fingerprint of the training set that was made, or asked for again, last."""
        made = self._by_age()
        if not made:
            raise NotFound("There is no training set yet.", remedy="Materialize `training_set`: `fraud run`.")
        return made[-1]

    def _by_age(self) -> list[str]:
        manifests = self.folder.glob("*/manifest.json")
        return [path.parent.name for path in sorted(manifests, key=lambda path: path.stat().st_mtime_ns)]

    def _forget(self, newest: str) -> None:
        for name in [name for name in self._by_age() if name != newest][: -(KEPT - 1)]:
            shutil.rmtree(self.folder / name, ignore_errors=True)


def shuffled_labels(data: LearningData, *, before: DayRange, seed: int) -> LearningData:
    """A fire drill for the gates: the labels of the days before a period, dealt to other payments of those days.

    The period itself keeps its true labels, so that the gates judge honestly what was learned from nonsense.
    """
    versions = data.label_versions
    if versions is None:
        return data
    early = np.flatnonzero(data.day < (before.start - date(1970, 1, 1)).days)
    dealt = np.arange(len(data))
    dealt[early] = np.random.default_rng(seed).permutation(early)
    moved = LabelVersions(dealt[versions.row], versions.is_fraud, versions.known_at)
    newest = int(versions.known_at.max(initial=0))
    return replace(data, label_versions=moved).as_known_at(newest)


def _save(folder: Path, data: LearningData) -> None:
    for name in _ARRAYS:
        array = getattr(data, name)
        if array is not None:
            np.save(
                folder / f"{name}.npy", array.astype(np.bytes_) if array.dtype == object else array, allow_pickle=False
            )
    if data.label_versions is not None:
        for name in _VERSIONS:
            np.save(folder / f"versions.{name}.npy", getattr(data.label_versions, name), allow_pickle=False)


def _load(folder: Path, names: Mapping[str, Any]) -> LearningData:
    arrays: dict[str, Any] = dict(names)
    for name in _ARRAYS:
        path = folder / f"{name}.npy"
        if path.exists():
            arrays[name] = np.load(path, mmap_mode="r" if name == "features" else None, allow_pickle=False)
    arrays["transaction_id"] = np.char.decode(arrays["transaction_id"], "utf-8")
    versions = None
    if (folder / "versions.row.npy").exists():
        versions = LabelVersions(*(np.load(folder / f"versions.{name}.npy", allow_pickle=False) for name in _VERSIONS))
    return LearningData(**arrays, label_versions=versions)


def _split(stored: Mapping[str, Any]) -> Split:
    ranges = {
        name: DayRange(*(date.fromisoformat(stored[name][edge]) for edge in ("start", "end")))
        for name in ("train", "validation", "test")
    }
    return Split(as_of=date.fromisoformat(stored["as_of"]), warm_up_days=int(stored["warm_up_days"]), **ranges)
