"""A claim of a transaction id in the state view: who decides it, and then what was decided. Bytes in, typed values out.

Knows nothing of the server that keeps it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Final
from zlib import crc32

from fraud_pipeline.domain.transaction import Transaction

_CONTENT: Final = tuple(f.name for f in fields(Transaction))
_FIELD_BYTES: Final = 4
FINGERPRINT_BYTES: Final = _FIELD_BYTES * len(_CONTENT)
_values: Final = attrgetter(*_CONTENT[:-1])
_pack: Final = struct.Struct(f"<{len(_CONTENT)}I").pack
if _CONTENT[-1] != "attributes":
    raise AssertionError("a fingerprint takes the attributes last")
_TAKEN: Final = b"c"
_DECIDED: Final = b"d"


@dataclass(frozen=True, slots=True)
class Claim:
    """`answer` is the decision's JSON, None while `holder` decides. `fingerprint` is the payment's."""

    fingerprint: bytes
    holder: bytes
    answer: bytes | None = None

    def to_bytes(self) -> bytes:
        """As it is kept."""
        if self.answer is None:
            return _TAKEN + self.fingerprint + self.holder
        return _DECIDED + self.fingerprint + self.answer

    @classmethod
    def of(cls, content: bytes) -> Claim:
        """The reverse of `to_bytes`."""
        fingerprint, rest = content[1 : 1 + FINGERPRINT_BYTES], content[1 + FINGERPRINT_BYTES :]
        return cls(fingerprint, b"", rest) if content[:1] == _DECIDED else cls(fingerprint, rest)

    def differing(self, transaction: Transaction) -> tuple[str, ...]:
        """The fields in which a payment differs from the one that has the id."""
        theirs, ours = self.fingerprint, fingerprint_of(transaction)
        if theirs == ours:
            return ()
        return tuple(
            name
            for place, name in enumerate(_CONTENT)
            if theirs[_FIELD_BYTES * place : _FIELD_BYTES * (place + 1)]
            != ours[_FIELD_BYTES * place : _FIELD_BYTES * (place + 1)]
        )


def fingerprint_of(transaction: Transaction) -> bytes:
    """Four bytes of each field: enough to tell a repeat from another payment, and which field differs."""
    values = [*_values(transaction), sorted((name, float(value)) for name, value in transaction.attributes.items())]
    return _pack(*(crc32(repr(value).encode()) for value in values))
