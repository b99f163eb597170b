"""`fraud models history`: who became champion when, by whom, why, and what it rested on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, remark, rows_table

if TYPE_CHECKING:
    from fraud_pipeline.domain.model_story import StoryEvent
    from fraud_pipeline.settings import Settings


def history(
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", help="Only what is about this version.")] = None,
    evidence: Annotated[bool, typer.Option("--evidence", help="Also each limit and gate with its value.")] = False,
    as_json: Json = False,
) -> None:
    """What happened to the models, the newest first: promotions, rollbacks, watches, challengers, retrainings asked for."""
    from fraud_pipeline.settings import load_settings

    events = [e for e in told(load_settings()) if version is None or e.version == version]
    if not events:
        remark("Nothing was promoted yet: `fraud run` trains and promotes a first champion.")

    def tables() -> Iterator[Any]:
        if events:
            rows = [(f"{e.at:%Y-%m-%d %H:%M:%S}", e.what, e.version, e.who, e.why) for e in events]
            yield rows_table(("when", "what", "version", "who", "why"), rows)
        for event in events if evidence else ():
            yield from _evidence_tables(event)

    emit({"history": events}, as_json=as_json, tables=tables)


def told(settings: Settings) -> list[StoryEvent]:
    """The whole story of this home's ledger, the newest first; without a ledger there is none."""
    from fraud_pipeline.adapters.watch_records import all_watches
    from fraud_pipeline.commands.opening import is_missing_file, open_ledger
    from fraud_pipeline.domain.model_story import WatchOutcome, story

    if is_missing_file(settings.ledger_url):
        return []
    with open_ledger(settings) as ledger:
        watches = [
            WatchOutcome(w.promotion_id, w.verdict, w.updated_at, w.evidence)
            for w in all_watches(ledger.database).values()
        ]
        return story(ledger.promotions(), watches, ledger.challengers(), ledger.episodes())


def _evidence_tables(event: StoryEvent) -> Iterator[Any]:
    title = f"{event.at:%Y-%m-%d %H:%M:%S}  {event.what}, version {event.version}"
    gates = (
        (event.evidence.get("gates") or {}).get("results", ()) if isinstance(event.evidence.get("gates"), dict) else ()
    )
    checks = event.evidence.get("checks") or (event.evidence.get("watch") or {}).get("checks") or ()
    rows = [
        (each["name"], "passed" if each["passed"] else "FAILED", each["value"], each["limit"], each["explanation"])
        for each in (*gates, *checks)
    ]
    if rows:
        yield rows_table(("gate or limit", "result", "value", "bound", "in words"), rows, title=title)
    for passed_over in event.evidence.get("passed_over") or ():
        yield f"passed over: {passed_over}"
