"""What schemas are put together from."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

TIME: Final[Schema] = {"type": "string", "format": "date-time"}
NUMBER_OR_NULL: Final[Schema] = {"type": ["number", "null"]}
TEXT: Final[Schema] = {"type": "string"}
TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
TIME_OR_NULL: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
NULL: Final[Schema] = {"type": "null"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}


def record(description: str, properties: Schema, *, optional: tuple[str, ...] = ()) -> Schema:
    """An object whose properties are all there but for the optional ones; more may come with later versions."""
    return {
        "type": "object",
        "description": description,
        "required": [name for name in properties if name not in optional],
        "properties": properties,
        "additionalProperties": True,
    }


def list_of(items: Schema, description: str = "") -> Schema:
    """An array."""
    return {"type": "array", "items": items} | ({"description": description} if description else {})
