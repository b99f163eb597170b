"""`fraud dlq`: the dead letters, one by one, and back into the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, field_table, remark, rows_table

if TYPE_CHECKING:
    from fraud_pipeline.adapters.kafka.dead_letters import DeadLetter, DeadLetters
    from fraud_pipeline.settings import Settings

PANEL = "Stream"
SHOWN_BYTES = 16_384
"""As much of a value as a person reads on a terminal; --out writes all of it."""
GROUP = "fraud-dlq"

dlq = typer.Typer(
    help="Messages that could not be taken: look at them, mend them, send them again.", no_args_is_help=True
)

PlaceArgument = Annotated[str, typer.Argument(help="The dead letter, as transactions.dlq[0]@12.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.add_typer(dlq, name="dlq", rich_help_panel=PANEL)


@dlq.command("list")
def list_(
    code: Annotated[list[str] | None, typer.Option(help="Only letters with this code. Repeatable.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Only letters from then on (RFC 3339).")] = None,
    source: Annotated[str | None, typer.Option(help="Only from this topic or partition, as transactions[3].")] = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only letters that were not requeued.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List the dead letters: where they are, where they came from, and why."""
    letters, _ = _opened()
    begin = None if since is None else _moment(since)
    chosen = [
        letter for letter in letters.all()
        if (not code or letter.code in code) and (not open_only or not letter.requeued)
        and _is_from(letter, source) and _is_since(letter, begin)
    ]  # fmt: skip
    shown = chosen[-limit:]
    counts = Counter(letter.code for letter in chosen)
    result = {
        "topic": letters.topic,
        "count": len(chosen),
        "codes": dict(counts),
        "letters": [_row(each) for each in shown],
    }
    emit(result, as_json=as_json, tables=lambda: _list_tables(letters.topic, shown, counts))


@dlq.command()
def show(
    place: PlaceArgument,
    out: Annotated[Path | None, typer.Option(help="Write the value's very bytes to this file, to be mended.")] = None,
    as_json: Json = False,
) -> None:
    """Show one dead letter: its error, key, headers and value. What a terminal would act on is escaped."""
    from base64 import b64encode

    from fraud_pipeline.adapters.kafka.messages import Place

    letters, _ = _opened()
    letter = letters.find(Place.parse(place))
    if out is not None:
        out.write_bytes(letter.value or b"")
        remark(f"{letter.size:,} bytes written to {out}.")
    value = None if letter.value is None else b64encode(letter.value).decode()
    result = {
        **_row(letter),
        "key": _safe(letter.key),
        "headers": _headers(letter),
        "value": _text(letter),
        "value_base64": value,
    }
    emit(result, as_json=as_json, tables=lambda: _letter_tables(letter))


@dlq.command()
def requeue(
    places: Annotated[
        list[str] | None, typer.Argument(help="Dead letters, as transactions.dlq[0]@12.", show_default=False)
    ] = None,
    code: Annotated[str | None, typer.Option(help="All letters with this code that were not requeued.")] = None,
    value: Annotated[Path | None, typer.Option(help="A file with the mended value, for one letter.")] = None,
    key: Annotated[str | None, typer.Option(help="Another key, for one letter.")] = None,
    again: Annotated[bool, typer.Option(help="Also what was requeued before.")] = False,
    as_json: Json = False,
) -> None:
    """Produce dead letters to the log again, with their own bytes, key and headers; all of them, or none."""
    from fraud_pipeline.adapters.kafka.messages import Place
    from fraud_pipeline.adapters.kafka.topics import Topics
    from fraud_pipeline.errors import InputError

    letters, settings = _opened()
    chosen = [Place.parse(place) for place in dict.fromkeys(places or ())]
    if (code is None) == (not chosen):
        raise InputError("Name the letters to requeue, or --code, not both and not neither.")
    if code is not None:
        chosen = [letter.place for letter in letters.all() if letter.code == code and not letter.requeued]
    if (value is not None or key is not None) and len(chosen) != 1:
        raise InputError(f"--value and --key are for one letter, and {len(chosen)} are named.")
    topic = Topics(settings.topic_prefix).transactions
    mended = None if value is None else value.read_bytes()
    if mended is not None or key is not None:
        _check(letters.find(chosen[0]), mended, key, settings)
    sent = letters.requeue(
        chosen, topic=topic, value=mended, key=None if key is None else key.encode(), again=again
    ) if chosen else []  # fmt: skip
    result = {"topic": topic, "requeued": [str(letter.place) for letter in sent]}
    emit(result, as_json=as_json, tables=lambda: iter([f"{len(sent):,} dead letters were produced to {topic} again."]))


def _opened() -> tuple[DeadLetters, Settings]:
    from fraud_pipeline.adapters.kafka.connection import consumer_config, dependency_error, producer_config
    from fraud_pipeline.adapters.kafka.dead_letters import DeadLetters
    from fraud_pipeline.adapters.kafka.topics import Topics
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    letters = DeadLetters(
        Topics(settings.topic_prefix).dead_letters,
        consumer=consumer_config(settings, group=settings.topic_prefix + GROUP),
        producer=producer_config(settings),
        trouble=lambda err, doing: dependency_error(settings, err, doing),
    )
    return letters, settings


def _check(letter: DeadLetter, value: bytes | None, key: str | None, settings: Settings) -> None:
    """Refuse a mended message that would be a dead letter again."""
    from fraud_pipeline.adapters.kafka.messages import BadMessage, read_log_message
    from fraud_pipeline.errors import InputError

    sent_key = letter.key if key is None else key.encode()
    sent = letter.value if value is None else value
    try:
        read_log_message(sent_key, sent, letter.headers, currency=settings.currency, received_at=datetime.now(UTC))
    except BadMessage as err:
        raise InputError(
            f"Mended like this it is a dead letter again ({err.code}): {err.message}", remedy=err.remedy
        ) from err


def _moment(given: str) -> datetime:
    from fraud_pipeline.errors import InputError

    try:
        moment = datetime.fromisoformat(given)
    except ValueError as err:
        raise InputError(f"--since {given!r} is no time.", remedy="Write it as 2026-03-01T00:00:00Z.") from err
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _is_from(letter: DeadLetter, source: str | None) -> bool:
    return source is None or letter.source.startswith((source + "[", source + "@"))


def _is_since(letter: DeadLetter, begin: datetime | None) -> bool:
    from fraud_pipeline.adapters.kafka.dead_letters import moment_of

    at = moment_of(letter)
    return begin is None or (at is not None and at.tzinfo is not None and at >= begin)


def _row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "place": str(letter.place), "code": letter.code, "source": letter.source, "at": letter.at, "bytes": letter.size,
        "requeued": letter.requeued, "earlier": letter.earlier, "error": letter.error,
    }  # fmt: skip


def _list_tables(topic: str, shown: list[DeadLetter], counts: Counter[str]) -> Iterator[Any]:
    """The letters; how many of each code; nothing but a line where there is none."""
    if not shown:
        yield f"No such dead letter in {topic}."
        return
    rows = [
        (
            str(each.place),
            each.code,
            each.source,
            each.at[:19],
            "yes" if each.requeued else "",
            _escaped(each.error)[:160],
        )
        for each in shown
    ]
    yield rows_table(("letter", "code", "from", "at (UTC)", "requeued", "error"), rows)
    yield rows_table(("code", "letters"), sorted(counts.items()))


def _letter_tables(letter: DeadLetter) -> Iterator[Any]:
    from rich.markup import escape

    facts = {name: value for name, value in _row(letter).items() if name not in {"requeued", "error"}}
    yield field_table({**facts, "error": _escaped(letter.error), "key": _safe(letter.key)})
    yield field_table({f"header {escape(_escaped(name))}": value for name, value in _headers(letter)})
    shown = _text(letter)
    yield "The value is null." if letter.value is None else escape(_hex(letter.value) if shown is None else shown)
    if letter.size > SHOWN_BYTES:
        yield f"... {SHOWN_BYTES:,} of {letter.size:,} bytes; --out FILE writes all."


def _headers(letter: DeadLetter) -> list[tuple[str, str | None]]:
    return [(name, _safe(content)) for name, content in letter.headers]


def _text(letter: DeadLetter) -> str | None:
    """The value as text with whatever is not printable escaped; None where it is no UTF-8."""
    try:
        return None if letter.value is None else _escaped(letter.value.decode()[:SHOWN_BYTES])
    except UnicodeDecodeError:
        return None


def _safe(content: bytes | None) -> str | None:
    return None if content is None else _escaped(content.decode(errors="backslashreplace"))


def _escaped(given: str) -> str:
    """Text without anything that a terminal acts on."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in given)


def _hex(value: bytes) -> str:
    """Sixteen bytes a line, in hexadecimal and as text."""
    lines = []
    for start in range(0, min(len(value), SHOWN_BYTES), 16):
        part = value[start : start + 16]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' '):<47}  {letters}")
    return "\n".join(lines)
