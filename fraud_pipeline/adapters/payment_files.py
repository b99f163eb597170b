"""A file of payments as a landed world: a home, or a file of any shape that an import knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from fraud_pipeline.adapters.import_files import open_source
from fraud_pipeline.adapters.import_mapping import CsvFormat, Mapping, load_mapping, parse_mapping, shipped_mappings
from fraud_pipeline.adapters.importer import import_file
from fraud_pipeline.adapters.source_store import SourceStore
from fraud_pipeline.errors import InputError, MappingError

_REQUIRED: Final = ("transaction_id", "customer_id", "merchant_id")
_OPTIONAL: Final = ("merchant_category", "channel", "country", "device_id", "currency")


def landed_payments(path: Path, *, mapping: str | None, scratch: Path, currency: str) -> SourceStore:
    """The payments of a home (a folder), or of a file, which is landed in `scratch`.

    Without a mapping the file's columns decide. Raises InputError where no shape that is known fits, and what an import
    raises; a row that breaks the contract is left out, as there.
    """
    if path.is_dir():
        store = SourceStore(path)
        store.manifest()
        return store
    chosen = load_mapping(mapping) if mapping else _fitting(path)
    import_file(path, chosen, home=scratch, currency=currency)
    return SourceStore(scratch)


def _fitting(path: Path) -> Mapping:
    """The mapping whose columns the file has: the contract's own names, or one of the shipped mappings."""
    columns = open_source(path, CsvFormat()).columns
    if set(columns) >= {"event_time", "amount", *_REQUIRED}:
        return parse_mapping(_own_names(columns))
    for name in shipped_mappings():
        mapping = load_mapping(name)
        try:
            mapping.resolve(columns)
        except MappingError:
            continue
        return mapping
    raise InputError(
        f"{path.name} has the columns of no mapping that is known: {', '.join(columns[:20])}.",
        remedy="Give --mapping with a TOML file of your own; docs/importing.md shows how.",
    )


def _own_names(columns: tuple[str, ...]) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": "contract",
        "event_time": {"column": "event_time"},
        "amount": {"column": "amount"},
    }
    content |= {name: name for name in (*_REQUIRED, *_OPTIONAL) if name in columns}
    if {"latitude", "longitude"} <= set(columns):
        content |= {"latitude": "latitude", "longitude": "longitude"}
    if {"is_fraud", "known_at"} <= set(columns):
        content["label"] = {"column": "is_fraud", "known_at": "known_at"}
    return content
