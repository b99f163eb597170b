"""Trained models between the step that fits them and the step that bundles them, in this home only.

Pickles, and so never a way in from outside: what is served, registered or promoted is the bundle (ONNX), never these.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fraud_pipeline.adapters.parquet_files import whole_file
from fraud_pipeline.errors import IntegrityError, NotFound

SETS_KEPT = 3
"""Models of the newest training sets stay."""


class ModelStore:
    """Models by training set, name and how they were fitted, under `models/` of a home."""

    def __init__(self, home: Path) -> None:
        self.folder = Path(home) / "models"

    def write(self, training_set: str, name: str, model: object, *, options: Mapping[str, Any]) -> Path:
        """Keep a model, whole or not at all, in place of an older one of the same name."""
        path = self._path(training_set, name)
        content = pickle.dumps({"options": _hash(options), "model": model}, protocol=pickle.HIGHEST_PROTOCOL)
        with whole_file(path) as file:
            file.write(hashlib.blake2b(content, digest_size=16).digest() + content)
        sets = sorted(
            (folder for folder in self.folder.iterdir() if folder.is_dir()), key=lambda f: f.stat().st_mtime_ns
        )
        for folder in sets[:-SETS_KEPT]:
            shutil.rmtree(folder, ignore_errors=True)
        return path

    def read(self, training_set: str, name: str, *, options: Mapping[str, Any] | None = None) -> Any:
        """The model. NotFound where it was not fitted (so: with `options`), IntegrityError where the file is damaged."""
        path = self._path(training_set, name)
        remedy = f"Materialize `{name}` again."
        if not path.exists():
            raise NotFound(f"There is no {name} for training set {training_set}.", remedy=remedy)
        stored = path.read_bytes()
        if hashlib.blake2b(stored[16:], digest_size=16).digest() != stored[:16]:
            raise IntegrityError(f"{path} is damaged.", remedy=remedy)
        content = pickle.loads(stored[16:])  # noqa: S301 written by this home, and its digest holds
        if options is not None and content["options"] != _hash(options):
            raise NotFound(f"The {name} of training set {training_set} was fitted with other options.", remedy=remedy)
        return content["model"]

    def _path(self, training_set: str, name: str) -> Path:
        return self.folder / training_set / f"{name}.pickle"


def _hash(options: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(dict(options), sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
