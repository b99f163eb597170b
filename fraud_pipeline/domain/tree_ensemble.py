"""Trees as plain arrays: the one form that the ONNX writer and the attribution kernels both read.

Knows nothing of XGBoost or scikit-learn: `adapters/tree_export.py` fills it from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ARRAYS: Final = {
    "feature": np.dtype(np.int32),
    "threshold": np.dtype(np.float32),
    "child": np.dtype(np.int32),
    "default_left": np.dtype(np.bool_),
    "value": np.dtype(np.float64),
    "roots": np.dtype(np.int32),
}
COVER: Final = "cover"


@dataclass(frozen=True, slots=True, eq=False)
class TreeEnsemble:
    """All trees of a model, their nodes one after another; the score of a row is `base` plus one leaf of every tree.

    Each array but `roots` has an entry per node. `feature` is the column that a node asks about, -1 at a leaf. A value
    goes left where it is below `threshold`, or equal to it with `or_equal`; NaN goes as `default_left` says. `child` is
    the number of the left child, and the right one is the next (0 at a leaf): siblings share a cache line. `value` is
    what a leaf adds to the score, and at an inner node the mean of that over the training rows that passed it. The nodes
    of a tree are contiguous, its root first. `cover` is how much of the training rows passed a node (their number, or
    the sum of their weights or hessians; only its shares matter); None in bundles made before it was kept.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    child: NDArray[np.int32]
    default_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    roots: NDArray[np.int32]
    base: float
    or_equal: bool
    cover: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        nodes = len(self.feature)
        for name, dtype in ARRAYS.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != 1 or (name != "roots" and len(array) != nodes):
                raise ValueError(f"trees: {name} must be {dtype} of {nodes} nodes, is {array.dtype} {array.shape}")
        if self.cover is not None and (self.cover.dtype != np.float32 or self.cover.shape != (nodes,)):
            raise ValueError(f"trees: cover must be float32 of {nodes} nodes, is {self.cover.dtype} {self.cover.shape}")
        if self.cover is not None and not np.all((self.cover >= 0) & np.isfinite(self.cover)):
            raise ValueError("trees: a cover is negative or not finite")
        inner = np.flatnonzero(self.feature >= 0)
        # A walk that only goes forward ends.
        if np.any(self.child[inner] <= inner) or np.any(self.child[inner] >= nodes - 1):
            raise ValueError("trees: a child does not come after its parent")
        if nodes == 0 or len(self.roots) == 0 or self.roots[0] != 0 or np.any(np.diff(self.roots) <= 0):
            raise ValueError("trees: roots must begin at 0 and rise")
        if self.roots[-1] >= nodes:
            raise ValueError("trees: a root lies past the last node")

    @property
    def n_trees(self) -> int:
        return len(self.roots)

    @property
    def n_nodes(self) -> int:
        return len(self.feature)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as named arrays, for `numpy.savez`."""
        return {f.name: np.asarray(held) for f in fields(self) if (held := getattr(self, f.name)) is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> TreeEnsemble:
        """The reverse of `arrays`; raises KeyError or ValueError where something is missing or does not fit."""
        named: dict[str, Any] = {name: np.ascontiguousarray(arrays[name]) for name in ARRAYS}
        cover = np.ascontiguousarray(arrays[COVER]) if COVER in arrays else None
        return cls(**named, base=float(arrays["base"]), or_equal=bool(arrays["or_equal"]), cover=cover)
