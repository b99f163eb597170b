"""One bundle's input vectors read as another's: the same computed features, attributes and fields, by other dictionaries.

So a decision's recorded vector can be asked of another model without computing anything again. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.domain.model_input import CODE_SUFFIX, ModelInput


@dataclass(frozen=True, eq=False)
class InputTranslation:
    """From vectors of one ModelInput to those of another; use `between`."""

    columns: NDArray[np.int64]  # for each column of the target, where it stands in the source
    codes: tuple[
        tuple[int, NDArray[np.float32]], ...
    ]  # target column, and the target's code of each of the source's codes
    same: bool

    @classmethod
    def between(cls, source: ModelInput, target: ModelInput) -> InputTranslation | None:
        """None where the target reads what the source has not recorded: another feature, definition, attribute or field."""
        if source.schema_hash == target.schema_hash:
            return cls(np.arange(len(target.names)), (), same=True)
        known = set(source.computed)
        if not (
            all(feature in known for feature in target.computed)
            and set(target.attributes) <= set(source.attributes)
            and set(target.codes) <= set(source.codes)
        ):
            return None
        place = {name: column for column, name in enumerate(source.names)}
        columns = np.array([place[name] for name in target.names], dtype=np.int64)
        codes = []
        for name, values in target.codes.items():
            wanted = {value: float(code) for code, value in enumerate(values)}
            table = [wanted.get(value, np.nan) for value in source.codes[name]]
            codes.append((target.names.index(name + CODE_SUFFIX), np.array(table, dtype=np.float32)))
        return cls(columns, tuple(codes), same=False)

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32 [n, F of the source] to float32 [n, F of the target]; a value that the target never saw is NaN."""
        if self.same:
            return np.ascontiguousarray(vectors)
        out = np.ascontiguousarray(vectors[:, self.columns])
        for column, table in self.codes:
            found = out[:, column]
            known = ~np.isnan(found)
            out[known, column] = table[found[known].astype(np.int64)]
        return out
