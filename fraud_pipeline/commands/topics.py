"""The topics on a Kafka: make them, verify them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fraud_pipeline.commands.output import Json, emit, remark, rows_table

if TYPE_CHECKING:
    from fraud_pipeline.adapters.kafka.topic_admin import TopicState

NO = 1
"""The exit code of an answer that is no."""

topics = typer.Typer(help="The topics on a Kafka: make them, verify them.", no_args_is_help=True)
Partitions = Annotated[
    int | None,
    typer.Option(min=1, max=10_000, help="Of the log of payments and what goes with it; else as it is there, or 6."),
]


def register(app: typer.Typer) -> None:
    """Add this area's commands."""
    app.add_typer(topics, name="topics", rich_help_panel="Serve")


@topics.command()
def create(
    partitions: Partitions = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, max=32_767, help="Copies of each partition; else the broker's default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the topics that are not there and verify the others, which are never changed."""
    from fraud_pipeline.adapters.kafka.topic_admin import create as make
    from fraud_pipeline.adapters.kafka.topics import Topics
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    _show(make(settings, Topics(settings.topic_prefix), partitions=partitions, replicas=replicas), as_json=as_json)


@topics.command()
def verify(partitions: Partitions = None, as_json: Json = False) -> None:
    """Compare the topics with what they must be; exit code 1 where one is missing or wrong."""
    from fraud_pipeline.adapters.kafka.topic_admin import verify as compared
    from fraud_pipeline.adapters.kafka.topics import Topics
    from fraud_pipeline.settings import load_settings

    settings = load_settings()
    _show(compared(settings, Topics(settings.topic_prefix), partitions=partitions), as_json=as_json)


def _show(states: Sequence[TopicState], *, as_json: bool) -> None:
    from fraud_pipeline.adapters.kafka.topic_admin import faults

    rows = [(one.topic, one.partitions, one.state, "; ".join(one.said) or None) for one in states]
    emit(
        {"topics": [_summary(one) for one in states], "works": not faults(states)},
        as_json=as_json,
        tables=lambda: iter([rows_table(("topic", "partitions", "state", "because"), rows)]),
    )
    for one in states:
        if one.remedy:
            remark(f"{one.topic}: {one.remedy}")
    if faults(states):
        raise typer.Exit(NO)


def _summary(one: TopicState) -> dict[str, Any]:
    return {
        "topic": one.topic,
        "partitions": one.partitions,
        "state": one.state,
        "said": list(one.said),
        "remedy": one.remedy or None,
    }
