"""Columns as they stand in a file, read as text, numbers, amounts and moments: vectorised, and value by value where a value is odd.

Each reader gives values (null or NaN where there is none) and masks of the rows that break a rule, with the contract's
own words for it (`domain/transaction.py`). Nothing is repaired.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fraud_pipeline.adapters.import_mapping import AmountSource, TimeSource
from fraud_pipeline.domain.transaction import MAX_AMOUNT_MINOR
from fraud_pipeline.errors import MappingError

Mask = npt.NDArray[np.bool_]

NOT_UTF8 = "is not UTF-8 text"
NOT_A_NUMBER = "must be a finite number"
NO_AMOUNT = "must be a finite number or a decimal string"
TOO_PRECISE = "must have at most 2 decimals"
AMOUNT_RANGE = "must be from 0 to 10,000,000"
NO_TIME = "is not a time of the mapping's format"
TIME_RANGE = "must lie between 1970 and 2199"
DATE_RANGE = "must lie between 1828 and 2112"
NO_SUCH_TIME = "does not exist, or exists twice, in the time zone (clocks were changed)"

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
_ISO = re.compile(r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+-]\d\d:?\d\d)?)?", re.ASCII)
_PLAIN_ISO = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?$"
_CONTRACT_US = (0, (datetime(2200, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days * 86_400_000_000)
_BIRTHDAYS_US = (-(2**52), 2**52)
"""For functions of dates: years 1828 to 2112, exact as float64."""
_QUARTER_HOUR_US = 900_000_000
_EXACT_FLOAT_DIGITS = 15


@dataclass(slots=True)
class Read:
    """A column that was read. `missing` rows hold nothing; `broken` pairs a mask with the rule that those rows break."""

    values: Any  # float64 or int64 array; Arrow strings of read_text
    missing: Mask
    broken: list[tuple[Mask, str]] = field(default_factory=list)

    def is_broken(self) -> Mask:
        masks = [mask for mask, _ in self.broken]
        return np.logical_or.reduce(masks) if masks else np.zeros(len(self.missing), bool)


def read_text(column: pa.Array, what: str) -> Read:
    """Text (nulls and empty strings are missing). Whole numbers stand for their digits; other types are refused."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind, not_utf8 = column.type, None
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        column, not_utf8 = _decoded(column)
    elif pa.types.is_floating(kind):
        column = _text_of_floats(column)
    elif pa.types.is_nested(kind) or pa.types.is_null(kind) or pa.types.is_temporal(kind):
        column = pa.nulls(len(column), pa.string()) if pa.types.is_null(kind) else _refuse(what, kind, "text")
    column = column.cast(pa.string())
    if len(column) and pc.any(pc.equal(column, "")).as_py():
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    missing = _mask(pc.is_null(column))
    return Read(column, missing, [] if not_utf8 is None else [(not_utf8, NOT_UTF8)])


def read_numbers(column: pa.Array, what: str) -> Read:
    """float64; null and NaN are missing, infinities and text that is no number are broken."""
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    if (
        pa.types.is_integer(column.type)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        values, wrong = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), None
    elif _is_textual(kind):
        values, wrong = _parsed_floats(read_text(column, what))
    else:
        _refuse(what, kind, "a number")
    broken = np.isinf(values) if wrong is None else np.isinf(values) | wrong
    return Read(values, np.isnan(values) & ~broken, [(broken, NOT_A_NUMBER)])


def read_amounts(column: pa.Array, source: AmountSource) -> Read:
    """int64 hundredths. A float stands for its shortest decimal form, so 24.36 has two decimals (24.361 three)."""
    kind = column.type
    if pa.types.is_boolean(kind) or not (_is_textual(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind)):
        _refuse("amount", kind, "an amount")
    if pa.types.is_integer(kind) or pa.types.is_float64(kind):
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        missing = _mask(pc.is_null(column))
        wrong = ~np.isfinite(values) & ~missing
        return _minor_units(values, missing, [(wrong, NO_AMOUNT)], source)
    text = read_text(column.cast(pa.string()) if pa.types.is_floating(kind) else column, "amount")
    values, wrong = _parsed_floats(text)
    wrong |= ~np.isfinite(values) & ~text.missing & ~text.is_broken()
    read = _minor_units(values, text.missing, [*text.broken, (wrong, NO_AMOUNT)], source)
    if source.rounding is None:
        _check_long_decimals(read, text.values, decimals=0 if source.unit == "minor" else 2)
    return read


def _minor_units(
    values: npt.NDArray[np.float64], missing: Mask, broken: list[tuple[Mask, str]], source: AmountSource
) -> Read:
    usable = np.isfinite(values) & ~missing
    with np.errstate(over="ignore"):  # what becomes infinite is out of range
        scaled = np.where(usable, values, 0.0) * (1.0 if source.unit == "minor" else 100.0)
    whole = np.rint(scaled)
    outside = (whole < 0) | (whole > MAX_AMOUNT_MINOR)
    minor = np.where(outside, 0, whole).astype(np.int64)
    broken.append((outside, AMOUNT_RANGE))
    if source.rounding is None:
        again = minor / (
            1.0 if source.unit == "minor" else 100.0
        )  # correctly rounded: equal exactly if 2 decimals were written
        broken.append((usable & ~outside & (again != np.where(usable, values, 0.0)), TOO_PRECISE))
    return Read(minor, missing, broken)


def _check_long_decimals(read: Read, text: pa.Array, *, decimals: int) -> None:
    """Text with more digits than a float holds can look like 2 decimals: look at those values as decimals."""
    long = _mask(pc.fill_null(pc.greater(pc.utf8_length(text), _EXACT_FLOAT_DIGITS), False)) & ~read.is_broken()
    if not long.any():
        return
    too_precise = np.zeros(len(long), bool)
    for i in np.flatnonzero(long):
        try:
            amount = Decimal(text[i].as_py()).scaleb(decimals)
        except InvalidOperation:  # pragma: no cover - what is no number is broken already
            continue
        too_precise[i] = amount != amount.to_integral_value()
    read.broken.append((too_precise, TOO_PRECISE))


def read_times(column: pa.Array, source: TimeSource, what: str, *, birthdays: bool = False) -> Read:
    """int64 microseconds since 1970 (UTC), in the years of the contract; `birthdays` allows those before 1970 too."""
    read = _read_times(column, source, what)
    first, end = _BIRTHDAYS_US if birthdays else _CONTRACT_US
    outside = ~((read.values >= first) & (read.values < end)) & ~read.missing & ~read.is_broken()
    values = np.where(outside, 0, read.values)
    return Read(values, read.missing, [*read.broken, (outside, DATE_RANGE if birthdays else TIME_RANGE)])


def _read_times(column: pa.Array, source: TimeSource, what: str) -> Read:
    if source.format in ("epoch_s", "epoch_ms", "seconds_since"):
        numbers = read_numbers(column, what)
        scale = 1e3 if source.format == "epoch_ms" else 1e6
        us = np.where(numbers.is_broken(), np.nan, np.rint(numbers.values * scale) + source.start_us)
        return _whole_us(us, numbers.missing, numbers.broken)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        moments, zoned = _stored_times(column)
        missing = _mask(pc.is_null(column))
        read = _whole_us(moments, missing, [])
        return read if zoned else _localized(read, source.zone)
    if not _is_textual(column.type):
        _refuse(what, column.type, f"a time of format {source.format}")
    text = read_text(column, what)
    naive, aware = _parsed_times(text.values, source.format)
    unread = np.isnan(naive) & np.isnan(aware) & ~text.missing & ~text.is_broken()
    broken = [*text.broken, (unread, NO_TIME)]
    local = _localized(_whole_us(naive, np.isnan(naive), []), source.zone)
    known = _whole_us(aware, np.isnan(aware), [])
    values = np.where(np.isnan(naive), known.values, local.values)
    return Read(values, text.missing, [*broken, *local.broken, *known.broken])


def _whole_us(us: npt.NDArray[np.float64], missing: Mask, broken: list[tuple[Mask, str]]) -> Read:
    """int64 from float64, which is exact to the year 2255; what is further away stays as far away as int64 can say."""
    return Read(np.clip(np.nan_to_num(us), -(2.0**62), 2.0**62).astype(np.int64), missing, broken)


def _localized(read: Read, zone: str) -> Read:
    """Local wall time to UTC. What daylight saving skips or repeats is broken: guessing would be wrong half of the time."""
    if zone == "UTC" or not len(read.missing):
        return read
    local = np.clip(read.values, -(2**52), 2**53)  # beyond, the zone no longer matters: the range rule rejects it
    quarters, where = np.unique(local // _QUARTER_HOUR_US, return_inverse=True)
    offsets = np.array([_offsets_us(int(quarter), zone) for quarter in quarters], np.int64)
    doubtful = (offsets[:, 0] != offsets[:, 1])[where] & ~read.missing & ~read.is_broken()
    return Read(read.values - offsets[where, 0], read.missing, [*read.broken, (doubtful, NO_SUCH_TIME)])


def _offsets_us(quarter: int, zone: str) -> tuple[int, int]:
    """UTC offset of a local quarter of an hour, taken as the first and as the second of its name; clocks change on quarters."""
    local = datetime.fromtimestamp(quarter * 900, UTC).replace(tzinfo=ZoneInfo(zone))
    first, second = local.utcoffset(), local.replace(fold=1).utcoffset()
    return (first or timedelta()) // timedelta(microseconds=1), (second or timedelta()) // timedelta(microseconds=1)


def _stored_times(column: pa.Array) -> tuple[npt.NDArray[np.float64], bool]:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s") if pa.types.is_date32(column.type) else pa.timestamp("ms"))
    ticks = pc.fill_null(column.view(pa.int64()), 0).to_numpy(zero_copy_only=False)
    us = ticks // 1000 if column.type.unit == "ns" else ticks * {"s": 1e6, "ms": 1e3, "us": 1.0}[column.type.unit]
    return us.astype(np.float64), column.type.tz is not None


def _parsed_times(text: pa.Array, pattern: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(without, with) a zone of their own; NaN where it is the other kind or cannot be read."""
    nothing = np.full(len(text), np.nan)
    if pattern == "iso" and pc.all(pc.match_substring_regex(text, _PLAIN_ISO)).as_py() is not False:
        with suppress(pa.ArrowInvalid):  # no such day
            parsed = text.cast(pa.timestamp("us"))
            return parsed.view(pa.int64()).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), nothing
    codes = text.dictionary_encode()
    moments = [_parsed_time(value, pattern) for value in codes.dictionary.to_pylist()]
    ticks = np.array([_ticks(moment) for moment in moments] + [np.nan])
    aware = np.array([moment is not None and moment.tzinfo is not None for moment in moments] + [False])
    indices = codes.indices.fill_null(len(moments)).to_numpy(zero_copy_only=False)
    return np.where(aware[indices], np.nan, ticks[indices]), np.where(aware[indices], ticks[indices], np.nan)


def _parsed_time(text: str, pattern: str) -> datetime | None:
    try:
        if pattern == "iso":
            return datetime.fromisoformat(text.upper()) if _ISO.fullmatch(text) else None
        return datetime.strptime(text, pattern)  # noqa: DTZ007  # its zone is the mapping's
    except ValueError:
        return None


def _ticks(moment: datetime | None) -> float:
    if moment is None:
        return np.nan
    epoch = datetime(1970, 1, 1, tzinfo=UTC if moment.tzinfo else None)
    span = moment - epoch
    return float((span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds)


def _decoded(column: pa.Array) -> tuple[pa.Array, Mask | None]:
    try:
        return column.cast(pa.string()), None
    except pa.ArrowInvalid:
        pass
    texts: list[str | None] = []
    for value in column.to_pylist():
        try:
            texts.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            texts.append(None)
    decoded = pa.array(texts, pa.string())
    return decoded, _mask(pc.and_(pc.is_null(decoded), pc.is_valid(column)))


def _text_of_floats(column: pa.Array) -> pa.Array:
    """Whole numbers as their digits (a column of ids with gaps is float64 in pandas), NaN as null."""
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    present = values[~np.isnan(values)]
    column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if np.all(np.abs(present) < 2**53) and np.all(present == np.rint(present)):
        return column.cast(pa.int64()).cast(pa.string())
    return column.cast(pa.string())


def _parsed_floats(text: Read) -> tuple[npt.NDArray[np.float64], Mask]:
    """Numbers from text, and the rows whose text is no number; "nan" in any case is a missing number."""
    column = text.values
    try:
        parsed = column.cast(pa.float64())
    except pa.ArrowInvalid:
        parsed = None
    if parsed is not None and pc.all(pc.match_substring_regex(column, _NUMBER)).as_py() is not False:
        return parsed.to_numpy(zero_copy_only=False), np.zeros(len(column), bool)
    infinite = pc.match_substring_regex(column, "^[+-]?inf(inity)?$", ignore_case=True)
    absent = pc.equal(pc.utf8_lower(column), "nan")
    number = pc.match_substring_regex(column, _NUMBER)
    usable = pc.if_else(number, pc.replace_substring_regex(column, r"^\+", ""), pa.scalar(None, pa.string()))
    values = np.where(_mask(infinite), np.inf, usable.cast(pa.float64()).to_numpy(zero_copy_only=False))
    return values, ~_mask(number) & ~_mask(absent) & ~_mask(infinite) & ~text.missing & ~text.is_broken()


def _is_textual(kind: pa.DataType) -> bool:
    tests: tuple[Callable[[pa.DataType], bool], ...] = (
        pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_dictionary,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _mask(array: pa.Array) -> Mask:
    return pc.fill_null(array, False).to_numpy(zero_copy_only=False)


def _refuse(what: str, kind: pa.DataType, wanted: str) -> pa.Array:
    raise MappingError(f"{what}: its column holds {kind}, which cannot be read as {wanted}.")
