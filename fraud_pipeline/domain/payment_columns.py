"""Payments by column, straight from the bytes of their JSON: no object is made of one that is plainly valid.

What is not plainly valid is no row here; whoever asks looks at it closely. Knows nothing of records, headers or topics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import lru_cache
from itertools import accumulate, chain, repeat
from typing import Final

import numpy as np
import numpy.typing as npt

from fraud_pipeline.domain.iso_codes import COUNTRIES
from fraud_pipeline.domain.payment_kernels import (
    ABSENT,
    CATEGORY,
    CHANNEL,
    CUSTOMER,
    DEVICE,
    IDENTITY,
    TEXTS,
    coded,
    read_payments,
)
from fraud_pipeline.domain.transaction import Transaction
from fraud_pipeline.domain.transaction_batch import made_of_columns

Ints = npt.NDArray[np.int64]

CODED: Final = ("customer_id", "merchant_id", "merchant_category", "channel", "country", "device_id")
"""The texts that have codes, in their order."""
_DEFAULTS: Final = {CATEGORY: "unknown", CHANNEL: "unknown"}


@dataclass(frozen=True, slots=True, eq=False)
class PaymentColumns:
    """n bodies; each column holds for the rows where `plain` is true. Times and hashes are those of `Item`."""

    plain: npt.NDArray[np.bool_]
    times: Ints
    amounts: Ints
    places: npt.NDArray[np.float64]
    """[n, 2] latitude and longitude; NaN for none."""
    identities: Ints
    contents: Ints
    codes: npt.NDArray[np.int32]
    """[n, len(CODED)]: places in `names`; ABSENT for none."""
    names: tuple[list[str], ...]
    """By coded field."""
    _text: bytes
    _spans: Ints

    def ids(self, rows: Sequence[int] | Ints) -> list[str]:
        """The transaction ids of these rows."""
        return _texts(self._text, self._spans[rows, IDENTITY])

    def transactions(self, rows: Ints, *, currency: str) -> list[Transaction]:
        """These rows as objects."""
        moments = [moment.replace(tzinfo=UTC) for moment in self.times[rows].astype("datetime64[us]").tolist()]
        placed = self.places[rows]
        latitudes, longitudes = placed[:, 0].tolist(), placed[:, 1].tolist()
        if np.isnan(placed).any():
            latitudes, longitudes = ([None if x != x else x for x in each] for each in (latitudes, longitudes))  # noqa: PLR0124
        customers, merchants, categories, channels, countries, devices = (
            self.column(field, rows) for field in range(len(CODED))
        )
        return made_of_columns(
            len(rows), self.ids(rows), moments, customers, merchants, self.amounts[rows].tolist(), repeat(currency), categories,
            channels, countries, devices, latitudes, longitudes, map(dict, repeat(())),
        )  # fmt: skip

    def column(self, field: int, rows: Ints) -> list[str | None]:
        """The texts of a coded field in these rows."""
        names: list[str | None] = [*self.names[field], None]
        return [names[code] for code in self.codes[rows, field].tolist()]


def payment_columns(bodies: Sequence[bytes], keys: Sequence[bytes], received: Ints, *, currency: str) -> PaymentColumns:
    """Read n bodies; a payment is plain only under its customer's key, and as of when it was received (µs)."""
    count, text, key_text = len(bodies), b"".join(bodies), b"".join(keys)
    plain, times, amounts = np.empty(count, bool), np.empty(count, np.int64), np.empty(count, np.int64)
    places, hashes = np.empty((count, 2)), np.empty((count, 2), np.int64)
    spans = np.empty((count, TEXTS, 2), np.int64)
    content = np.frombuffer(text, np.uint8)
    read_payments(
        content, _starts(bodies), (np.frombuffer(key_text, np.uint8), _starts(keys)), received,
        np.frombuffer(currency.encode(), np.uint8), _countries(), plain, times, amounts, places, spans, hashes,
    )  # fmt: skip
    codes, names = _coded(text, content, spans, plain)
    return PaymentColumns(plain, times, amounts, places, hashes[:, 0], hashes[:, 1], codes, names, text, spans)


def _coded(
    text: bytes, content: npt.NDArray[np.uint8], spans: Ints, plain: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int32], tuple[list[str], ...]]:
    codes = np.empty((len(plain), len(CODED)), np.int32)
    firsts, table = np.empty(len(plain), np.int64), np.empty(1 << (2 * len(plain)).bit_length(), np.int64)
    names = []
    for column, field in enumerate(range(CUSTOMER, DEVICE + 1)):
        count = int(coded(content, spans[:, field], plain, codes[:, column], firsts, table))
        found = _texts(text, spans[firsts[:count], field])
        if field in _DEFAULTS:
            missing = plain & (codes[:, column] == ABSENT)
            if missing.any():
                codes[missing, column] = len(found)
                found.append(_DEFAULTS[field])
        names.append(found)
    return codes, tuple(names)


def _texts(text: bytes, spans: Ints) -> list[str]:
    return [text[start : start + length].decode() for start, length in spans.tolist()]


def _starts(pieces: Sequence[bytes]) -> Ints:
    return np.fromiter(chain((0,), accumulate(map(len, pieces))), np.int64, len(pieces) + 1)


@lru_cache(maxsize=1)
def _countries() -> npt.NDArray[np.bool_]:
    table = np.zeros((26, 26), bool)
    for code in COUNTRIES:
        table[ord(code[0]) - 65, ord(code[1]) - 65] = True
    return table


def warm() -> None:
    """Compile (or load) what reads payments."""
    payment_columns([b"{}"], [b""], np.zeros(1, np.int64), currency="USD")
