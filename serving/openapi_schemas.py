"""What the service takes, as JSON Schema 2020-12 made from the domain's own constants.

The schemas say exactly what `parse_transaction` accepts: null stands for an optional field that is not given, fields that
the contract does not know are ignored. What JSON Schema cannot say (how old an event may be) stands in the descriptions.
"""

from __future__ import annotations

from typing import Final

from fraud_pipeline.domain.iso_codes import COUNTRIES
from fraud_pipeline.domain.label import LONGEST_AUTHOR
from fraud_pipeline.domain.transaction import (
    CHANNELS,
    LABEL_SOURCES,
    MAX_AGE,
    MAX_AMOUNT_MINOR,
    MAX_ATTRIBUTES,
    MAX_FUTURE,
)
from serving.openapi_shapes import Schema

MAX_BATCH: Final = 5_000
LARGEST_FLOAT: Final = 1.7976931348623157e308
TRANSACTION_ID_PATTERN: Final = r"^[A-Za-z0-9._:\-]{1,64}$"
ATTRIBUTE_NAME_PATTERN: Final = "^[a-z0-9_]{1,40}$"
PRINTABLE: Final = r"^[ \p{L}\p{M}\p{N}\p{P}\p{S}]*$"
"""As str.isprintable has it: no controls, surrogates, private or unassigned characters, no space but U+0020."""


def text_schema(longest: int, description: str) -> Schema:
    """Printable text of 1 to `longest` characters."""
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": longest,
        "pattern": PRINTABLE,
        "description": f"{description} Printable characters only.",
    }


def transaction_id_schema() -> Schema:
    """The id of a transaction."""
    return {
        "type": "string",
        "pattern": TRANSACTION_ID_PATTERN,
        "description": "1 to 64 of A-Z a-z 0-9 . _ : - ; the idempotency key: the same id and content is answered the same.",
    }


def optional(schema: Schema) -> Schema:
    """The same, or null: a null is a field that is not given."""
    if "enum" in schema:
        return {**schema, "type": [schema["type"], "null"], "enum": [*schema["enum"], None]}
    return {**schema, "type": [schema["type"], "null"]}


def amount_schema() -> Schema:
    """A number, or a decimal string for those who do not trust floats with money."""
    whole = MAX_AMOUNT_MINOR // 100
    digits = len(str(whole)) - 1  # below the limit, which is a power of ten
    decimals = r"(?:\.[0-9]{1,2}0{0,10})?"
    below = rf"0{{0,{13 - digits}}}[0-9]{{1,{digits}}}{decimals}"
    limit = rf"0{{0,{13 - digits - 1}}}{whole}(?:\.0{{1,12}})?"
    zero = r"-0{1,13}(?:\.0{1,12})?"
    return {
        "description": (
            f"0 (an account verification) to {whole:,}, with at most 2 decimals; as a string exact whatever reads it."
        ),
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": whole, "multipleOf": 0.01},
            {"type": "string", "pattern": f"^(?:{below}|{limit}|{zero})$"},
        ],
    }


def event_time_schema() -> Schema:
    """When it happened."""
    minutes, days = int(MAX_FUTURE.total_seconds() // 60), MAX_AGE.days
    return {
        "type": "string",
        "format": "date-time",
        "description": (
            f"RFC 3339 with its zone. At most {minutes} minutes after the service's clock and at most {days} days "
            "before it, else 422; no leap seconds."
        ),
    }


def degrees_schema(limit: int) -> Schema:
    """A coordinate."""
    return optional(
        {"type": "number", "minimum": -limit, "maximum": limit, "description": "Degrees; both coordinates or neither."}
    )


def transaction_schema(currency: str) -> Schema:
    """One payment."""
    fields: Schema = {
        "transaction_id": transaction_id_schema(),
        "event_time": event_time_schema(),
        "customer_id": text_schema(64, "Who pays."),
        "merchant_id": text_schema(64, "Who is paid."),
        "amount": amount_schema(),
        "currency": optional(
            {
                "type": "string",
                "enum": [currency],
                "description": "ISO 4217. Sums never mix currencies: one service, one currency.",
            }
        ),
        "merchant_category": optional(text_schema(32, "What the merchant sells; `unknown` where not given.")),
        "channel": optional({"type": "string", "enum": list(CHANNELS), "description": "`unknown` where not given."}),
        "country": optional({"type": "string", "enum": sorted(COUNTRIES), "description": "ISO 3166-1 alpha-2."}),
        "device_id": optional(text_schema(64, "The customer's device.")),
        "latitude": degrees_schema(90),
        "longitude": degrees_schema(180),
        "attributes": optional(
            {
                "type": "object",
                "maxProperties": MAX_ATTRIBUTES,
                "propertyNames": {"type": "string", "pattern": ATTRIBUTE_NAME_PATTERN},
                "additionalProperties": {"type": "number", "minimum": -LARGEST_FLOAT, "maximum": LARGEST_FLOAT},
                "description": "Numbers of your own, by name; those that the model was trained with join its input.",
            }
        ),
    }
    number, absent = {"type": "number"}, {"type": "null"}
    return {
        "type": "object",
        "description": "One payment, whole. Fields that are not listed are ignored and counted.",
        "required": ["transaction_id", "event_time", "customer_id", "merchant_id", "amount"],
        "properties": fields,
        "additionalProperties": True,
        "anyOf": [  # both coordinates or neither; dependentRequired would take a null for a value
            {"properties": {"latitude": absent, "longitude": absent}},
            {"required": ["latitude", "longitude"], "properties": {"latitude": number, "longitude": number}},
        ],
    }


def reference_schema() -> Schema:
    """A transaction that is recorded already, by its id alone."""
    return {
        "type": "object",
        "description": "A recorded transaction, by its id alone: its stored decision, or a decision now; 404 if unknown.",
        "required": ["transaction_id"],
        "properties": {"transaction_id": transaction_id_schema()},
        "additionalProperties": False,
    }


def batch_schema() -> Schema:
    """Many transactions. An item may be anything: what it breaks is its own result, and no fault of the request."""
    return {
        "type": "object",
        "required": ["transactions"],
        "properties": {
            "transactions": {
                "type": "array",
                "maxItems": MAX_BATCH,
                "description": "They are decided in event order and answered in the order given.",
                "items": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/Transaction"},
                        {"$ref": "#/components/schemas/TransactionReference"},
                        {"description": "Anything else spoils only itself: its result is an error."},
                    ]
                },
            }
        },
        "additionalProperties": True,
    }


def label_schema() -> Schema:
    """What was learned about a transaction."""
    return {
        "type": "object",
        "description": "What was learned about a transaction. When it was learned (`known_at`) is stamped by the service.",
        "required": ["transaction_id", "is_fraud"],
        "properties": {
            "transaction_id": transaction_id_schema(),
            "is_fraud": {"type": "boolean"},
            "source": optional(
                {"type": "string", "enum": list(LABEL_SOURCES), "description": "`analyst` where not given."}
            ),
            "author": optional(text_schema(LONGEST_AUTHOR, "Who says so; the key's name where not given.")),
        },
        "not": {"required": ["labels"]},
        "additionalProperties": True,
    }


def label_batch_schema() -> Schema:
    """Many labels; a broken one spoils only itself."""
    return {
        "type": "object",
        "required": ["labels"],
        "properties": {
            "labels": {
                "type": "array",
                "maxItems": MAX_BATCH,
                "items": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/Label"},
                        {"description": "Anything else spoils only itself: it is among `errors`."},
                    ]
                },
            }
        },
        "additionalProperties": True,
    }
