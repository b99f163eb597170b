"""One label from outside: the rules that every way in holds it to. `known_at` is the recorder's, never the sender's."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, cast

from fraud_pipeline.domain.transaction import LABEL_SOURCES, FieldReader, Label, LabelSource
from fraud_pipeline.errors import InvalidTransaction

LONGEST_AUTHOR: Final = 64


def parse_label(payload: Mapping[str, object], *, known_at: datetime, default_author: str) -> Label:
    """Check one label. Raises InvalidTransaction with every broken rule."""
    reader = FieldReader(payload)
    identity = reader.identifier("transaction_id")
    is_fraud = payload.get("is_fraud")
    if not isinstance(is_fraud, bool):
        reader.reject("is_fraud", is_fraud, "must be true or false" if "is_fraud" in payload else "is required")
    source = reader.choice("source", LABEL_SOURCES, default="analyst")
    author = reader.text("author", LONGEST_AUTHOR, default=default_author)
    if reader.violations:
        raise InvalidTransaction(tuple(reader.violations))
    return Label(cast("str", identity), bool(is_fraud), cast("LabelSource", source), cast("str", author), known_at)
