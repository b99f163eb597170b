"""How the columns of a file become Transactions and labels: the TOML mapping, checked and resolved against a file.

`docs/importing.md` shows every form. Knows nothing of how files are read; `import_rules` applies what stands here.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
import string
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from fraud_pipeline.domain.transaction import CHANNELS, MAX_ATTRIBUTES
from fraud_pipeline.errors import MappingError

ROW = "row"
"""In a template, the number of the row in its file, from 1."""
ANY = "*"
"""Among a label's fraud values: any value that is not listed as legitimate, such as the date of a chargeback."""
_ATTRIBUTE_NAME = re.compile(r"[a-z0-9_]{1,40}")
_DURATION = re.compile(r"(\d+)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _column_shorthand(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


class FieldSource(_Model):
    """Where a text field comes from: a column, a constant, or a template such as `"card-{CARD}"` or `"{row}"`.

    `values` translates (exact values first, then patterns such as `"*_net"` in order); what it does not name becomes
    `default`, or stays as it is when there is none.
    """

    column: str | None = None
    constant: str | None = None
    template: str | None = None
    values: dict[str, str] = Field(default_factory=dict)
    default: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.column, self.constant, self.template)) != 1:
            raise ValueError("needs exactly one of column, constant, template")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        if self.template is not None:
            return tuple(name for _, name in template_parts(self.template) if name and name != ROW)
        return (self.column,) if self.column is not None else ()

    def translate(self, value: str) -> str:
        if value in self.values:
            return self.values[value]
        patterns = (new for old, new in self.values.items() if fnmatch.fnmatchcase(value, old))
        return next(patterns, value if self.default is None else self.default)


class TimeSource(_Model):
    """A moment. `format`: `iso` (also columns that already are timestamps), a strptime pattern, `epoch_s`, `epoch_ms`,
    or `seconds_since` a `start`. Times without a zone of their own are in `zone`.
    """

    column: str
    format: str = "iso"
    zone: str = "UTC"
    start: datetime | None = None

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError) as err:
            raise ValueError(f"{zone!r} is no time zone, such as Europe/Berlin") from err
        return zone

    @model_validator(mode="after")
    def _start_where_needed(self) -> Self:
        if self.format not in ("iso", "epoch_s", "epoch_ms", "seconds_since") and "%" not in self.format:
            raise ValueError(
                f"format {self.format!r} is neither iso, epoch_s, epoch_ms, seconds_since nor a strptime pattern"
            )
        if (self.format == "seconds_since") != (self.start is not None):
            raise ValueError("format seconds_since and start go together")
        return self

    @property
    def start_us(self) -> int:
        """The start in microseconds since 1970; without a zone of its own it is in `zone`."""
        if self.start is None:
            return 0
        start = self.start if self.start.tzinfo else self.start.replace(tzinfo=ZoneInfo(self.zone))
        return (start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


class AmountSource(_Model):
    """The amount. `unit = "minor"`: already in hundredths. `rounding = "cents"`: round to 2 decimals instead of rejecting."""

    column: str
    unit: Literal["major", "minor"] = "major"
    rounding: Literal["cents"] | None = None


class AttributeSource(_Model):
    """A number of one's own: a column, or a function of columns.

    `years_since` (a date column): years of 365.25 days from that date to the event.
    `haversine_km` (latitude, longitude, latitude, longitude): great-circle distance.
    """

    column: str | None = None
    function: Literal["years_since", "haversine_km"] | None = None
    source_columns: tuple[str, ...] = Field(default=(), alias="columns")
    format: str = "iso"

    @model_validator(mode="after")
    def _arguments(self) -> Self:
        if self.function == "haversine_km" and (len(self.source_columns) != 4 or self.column):
            raise ValueError("haversine_km needs columns = [latitude, longitude, latitude, longitude]")
        if self.function != "haversine_km" and (self.column is None or self.source_columns):
            raise ValueError("needs a column")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return self.source_columns if self.column is None else (self.column,)


def _duration(value: Any) -> Any:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('must be a duration such as "7d", "36h" or "90m"')
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


class LabelSource(_Model):
    """Which payments were fraud, and when that became known: `delay` after the payment, or at the time in `known_at`.

    `"*"` among `fraud` is any value. A row without a label (null) has none; with `known_at`, neither has one whose time is null.
    """

    column: str
    fraud: tuple[str, ...] = ("1", "1.0", "true", "yes")
    legitimate: tuple[str, ...] = ("0", "0.0", "false", "no")
    delay: Annotated[timedelta, BeforeValidator(_duration)] | None = None
    known_at: Annotated[TimeSource, BeforeValidator(_column_shorthand)] | None = None
    author: str = "import"

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if (self.delay is None) == (self.known_at is None):
            raise ValueError('needs exactly one of delay (such as "7d") and known_at (a column)')
        return self


class CsvFormat(_Model):
    """How a CSV is written. `multiline`: values may hold line breaks (else they are taken for a quote left open)."""

    delimiter: str = Field(",", min_length=1, max_length=1)
    encoding: str = "utf-8"
    multiline: bool = False

    @field_validator("encoding")
    @classmethod
    def _keeps_lines(cls, encoding: str) -> str:
        try:
            if "\n".encode(encoding) != b"\n":
                raise ValueError(f"{encoding} is not supported: convert the file to UTF-8")
        except LookupError as err:
            raise ValueError(f"{encoding!r} is no encoding") from err
        return encoding


_Text = Annotated[FieldSource, BeforeValidator(_column_shorthand)]


class Mapping(_Model):
    """A checked mapping. Where a field stands as plain text, it is the name of its column."""

    name: str = ""
    description: str = ""
    transaction_id: _Text
    event_time: Annotated[TimeSource, BeforeValidator(_column_shorthand)]
    customer_id: _Text
    merchant_id: _Text
    amount: Annotated[AmountSource, BeforeValidator(_column_shorthand)]
    currency: _Text | None = None
    merchant_category: _Text | None = None
    channel: _Text | None = None
    country: _Text | None = None
    device_id: _Text | None = None
    latitude: str | None = None
    longitude: str | None = None
    attributes: dict[str, Annotated[AttributeSource, BeforeValidator(_column_shorthand)]] = Field(default_factory=dict)
    attribute_columns: tuple[str, ...] = ()
    label: LabelSource | None = None
    csv: CsvFormat = CsvFormat()

    @model_validator(mode="after")
    def _rules_of_the_contract(self) -> Self:
        for name in self.attributes:
            if not _ATTRIBUTE_NAME.fullmatch(name):
                raise ValueError(f"attribute {name!r}: its name must be 1 to 40 of a-z 0-9 _")
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError("latitude and longitude go together")
        if self.channel is not None:
            named = {*self.channel.values.values(), self.channel.default, self.channel.constant} - {None}
            if wrong := sorted(str(value) for value in named - set(CHANNELS)):
                raise ValueError(f"channel {', '.join(wrong)}: must be one of {', '.join(CHANNELS)}")
        return self

    def fields(self) -> Iterator[tuple[str, FieldSource]]:
        """The text fields that are mapped, with their names."""
        for name in _TEXT_FIELDS:
            if (source := getattr(self, name)) is not None:
                yield name, source

    def resolve(self, columns: Sequence[str]) -> Mapping:
        """This mapping for a file with these columns, with its attribute patterns spelt out.

        Raises MappingError naming the column that the file does not have, or has twice.
        """
        attributes = dict(self.attributes)
        for pattern in self.attribute_columns:
            matches = fnmatch.filter(columns, pattern)
            if not matches:
                raise _unknown_column("attribute_columns", pattern, columns)
            for column in matches:
                name = re.sub(r"[^a-z0-9_]+", "_", column.lower())[:40]
                if name in attributes and attributes[name].column != column:
                    raise MappingError(f"attribute_columns: {column!r} makes a second attribute {name!r}.")
                attributes[name] = AttributeSource(column=column)
        if len(attributes) > MAX_ATTRIBUTES:
            raise MappingError(
                f"The mapping makes {len(attributes)} attributes; a transaction has at most {MAX_ATTRIBUTES}."
            )
        resolved = self.model_copy(update={"attributes": attributes, "attribute_columns": ()})
        for field, column in resolved.uses():
            if column not in columns:
                raise _unknown_column(field, column, columns)
            if list(columns).count(column) > 1:
                raise MappingError(
                    f"{field}: the file has more than one column {column!r}.", remedy="Rename one of them."
                )
        return resolved

    def uses(self) -> Iterator[tuple[str, str]]:
        """(field, column) of everything that is read from the file."""
        for name, source in self.fields():
            yield from ((name, column) for column in source.columns)
        yield "event_time", self.event_time.column
        yield "amount", self.amount.column
        if self.latitude is not None and self.longitude is not None:
            yield "latitude", self.latitude
            yield "longitude", self.longitude
        for name, attribute in self.attributes.items():
            yield from ((f"attributes.{name}", column) for column in attribute.columns)
        if self.label is not None:
            yield "label", self.label.column
            if self.label.known_at is not None:
                yield "label.known_at", self.label.known_at.column


_TEXT_FIELDS = (
    "transaction_id", "customer_id", "merchant_id", "currency", "merchant_category", "channel", "country", "device_id",
)  # fmt: skip


def template_parts(template: str) -> list[tuple[str, str | None]]:
    """(text, the column after it) of each piece of a template."""
    try:
        return [(text, name) for text, name, _, _ in string.Formatter().parse(template)]
    except ValueError as err:
        raise MappingError(f"template {template!r}: {err}.") from err


def shipped_mappings() -> list[str]:
    """The names of the mappings that come with the package."""
    folder = resources.files("fraud_pipeline") / "mappings"
    return sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml"))


def load_mapping(name_or_path: str | Path) -> Mapping:
    """A shipped mapping by its name, or one's own by its path. Raises MappingError saying what is wrong with it."""
    shown = str(name_or_path)
    if shown in shipped_mappings():
        text = (resources.files("fraud_pipeline") / "mappings" / f"{shown}.toml").read_text("utf-8")
    else:
        path = Path(name_or_path)
        if not path.is_file():
            raise MappingError(
                f"There is no mapping {shown!r}.",
                remedy=f"Give the path of a .toml file, or one of: {', '.join(shipped_mappings())}.",
            )
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as err:
            raise MappingError(f"The mapping {shown} cannot be read: {err}.") from err
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise MappingError(f"The mapping {shown} is not TOML: {err}.") from err
    return parse_mapping({"name": Path(shown).stem, **content}, shown=shown)


def parse_mapping(content: dict[str, Any], *, shown: str = "given") -> Mapping:
    """A mapping from its parsed TOML. Raises MappingError naming every key that is unknown, missing or wrong."""
    try:
        return Mapping.model_validate(content)
    except ValidationError as err:
        problems = "; ".join(_explained(problem) for problem in err.errors())
        raise MappingError(f"The mapping {shown}: {problems}.", remedy="docs/importing.md shows every key.") from err


def _explained(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = {name for model in _Model.__subclasses__() for name in model.model_fields} | {"columns"}
        return f"unknown key {where!r}{_did_you_mean(str(problem['loc'][-1]), known)}"
    if problem["type"] == "missing":
        return f"{where} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    by_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_case, n=1, cutoff=0.5)
    return f" (did you mean {by_case[close[0]]!r}?)" if close else ""


def _unknown_column(field: str, column: str, columns: Sequence[str]) -> MappingError:
    shown = ", ".join(columns[:40]) + (", ..." if len(columns) > 40 else "")
    return MappingError(
        f"{field}: the file has no column {column!r}{_did_you_mean(column, columns)}.", remedy=f"It has: {shown}."
    )
