"""What a bundle's models read: which computed features, attributes and codes, in which order.

The computed features come first, then the attributes of the world the models were trained on, then codes for category,
channel and country, by dictionaries that travel in the bundle. NaN where a payment lacks one, or has a value not seen in
training. One payment and a whole matrix are assembled to the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraud_pipeline.domain.feature_spec import FEATURES, Feature
from fraud_pipeline.domain.transaction import ATTRIBUTE_PREFIX, Transaction
from fraud_pipeline.errors import SchemaMismatch

CODED_FIELDS: Final = ("merchant_category", "channel", "country")
CODE_SUFFIX: Final = "_code"
_REMEDY: Final = (
    "Promote a bundle trained with this version of the code, or serve this one with the code that trained it."
)


@dataclass(frozen=True, slots=True)
class ModelInput:
    """`computed` are (name, definition hash); `codes` gives each coded field's values, whose codes are their places."""

    computed: tuple[tuple[str, str], ...]
    attributes: tuple[str, ...] = ()
    codes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := [name for name in self.codes if name not in CODED_FIELDS]:
            raise ValueError(f"no codes can be made for {', '.join(unknown)}: only for {', '.join(CODED_FIELDS)}")
        if len(set(self.names)) != len(self.names):
            raise ValueError("a model input is named twice")

    @classmethod
    def of(
        cls,
        features: Iterable[Feature] = FEATURES,
        *,
        attributes: Iterable[str] = (),
        codes: Mapping[str, Sequence[str]] | None = None,
    ) -> ModelInput:
        """These computed features as this code defines them, and the world's attributes and codes."""
        return cls(
            computed=tuple((feature.name, feature.definition_hash) for feature in features),
            attributes=tuple(attributes),
            codes={name: tuple(values) for name, values in (codes or {}).items()},
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all columns, in order."""
        return (
            *(name for name, _ in self.computed),
            *(ATTRIBUTE_PREFIX + name for name in self.attributes),
            *(name + CODE_SUFFIX for name in self.codes),
        )

    @property
    def schema_hash(self) -> str:
        """12 hex digits over names, definitions and dictionaries: two bundles with the same one read the same vector."""
        text = repr((self.computed, self.attributes, tuple(self.codes.items())))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def as_dict(self) -> dict[str, Any]:
        return {
            "computed": [{"name": name, "definition_hash": definition} for name, definition in self.computed],
            "attributes": list(self.attributes),
            "codes": [{"field": name, "values": list(values)} for name, values in self.codes.items()],
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ModelInput:
        """The reverse of `as_dict`; KeyError, TypeError or ValueError where it is not one."""
        return cls(
            computed=tuple((str(f["name"]), str(f["definition_hash"])) for f in stored["computed"]),
            attributes=tuple(str(name) for name in stored["attributes"]),
            codes={str(c["field"]): tuple(str(v) for v in c["values"]) for c in stored["codes"]},
        )


class InputAssembler:
    """Puts together the vectors that a ModelInput describes, from what this code computes."""

    def __init__(self, model_input: ModelInput, features: Sequence[Feature] = FEATURES) -> None:
        """Raises SchemaMismatch naming the features that this code lacks or defines otherwise."""
        self._columns = required_columns(model_input, features)
        self._computed = len(self._columns)
        self._attributes = model_input.attributes
        self._codes = [
            (name, {value: float(code) for code, value in enumerate(values)})
            for name, values in model_input.codes.items()
        ]
        self._width = len(model_input.names)

    def vector(self, computed: NDArray[np.float32], transaction: Transaction) -> NDArray[np.float32]:
        """float32 [F'] for one payment, from its computed features [len(FEATURES)]."""
        out = np.empty(self._width, dtype=np.float32)
        out[: self._computed] = computed[self._columns]
        place = self._computed
        for name in self._attributes:
            out[place] = transaction.attributes.get(name, np.nan)
            place += 1
        for name, codes in self._codes:
            out[place] = codes.get(getattr(transaction, name), np.nan)
            place += 1
        return out

    def vectors(self, computed: NDArray[np.float32], transactions: Sequence[Transaction]) -> NDArray[np.float32]:
        """`vector` of each of n payments: float32 [n, F'], from their computed features [n, len(FEATURES)]."""
        return self.matrix(
            computed,
            attributes={
                name: np.array([t.attributes.get(name, np.nan) for t in transactions], np.float64)
                for name in self._attributes
            },
            fields={name: [getattr(t, name) for t in transactions] for name, _ in self._codes},
        )

    def matrix(
        self,
        computed: NDArray[np.float32],
        *,
        attributes: Mapping[str, NDArray[Any]] | None = None,
        fields: Mapping[str, Sequence[str | None]] | None = None,
    ) -> NDArray[np.float32]:
        """float32 [n, F'] from computed features [n, len(FEATURES)] and columns by name; a column not given is missing."""
        out = np.full((len(computed), self._width), np.nan, dtype=np.float32)
        out[:, : self._computed] = computed[:, self._columns]
        place = self._computed
        for name in self._attributes:
            if attributes is not None and name in attributes:
                out[:, place] = attributes[name]
            place += 1
        for name, codes in self._codes:
            if fields is not None and name in fields:
                out[:, place] = [codes.get(value, np.nan) if value is not None else np.nan for value in fields[name]]
            place += 1
        return out


def required_columns(model_input: ModelInput, features: Sequence[Feature] = FEATURES) -> NDArray[np.int64]:
    """Where each computed input stands among `features`; SchemaMismatch names what is missing or means something else."""
    places = {feature.name: place for place, feature in enumerate(features)}
    missing = [name for name, _ in model_input.computed if name not in places]
    if missing:
        raise SchemaMismatch(f"The bundle needs {_named(missing)}, which this code does not compute.", remedy=_REMEDY)
    changed = [
        name for name, definition in model_input.computed if features[places[name]].definition_hash != definition
    ]
    if changed:
        raise SchemaMismatch(f"This code computes {_named(changed)} differently from the bundle.", remedy=_REMEDY)
    return np.array([places[name] for name, _ in model_input.computed], dtype=np.int64)


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{'feature' if len(names) == 1 else 'features'} {shown}{more}"
