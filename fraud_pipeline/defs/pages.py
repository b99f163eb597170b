"""What an asset's page in the UI shows: plots, tables and links as metadata values."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from fraud_pipeline.settings import without_password

OWNERS = ["team:fraud"]


def plots(pictures: Mapping[str, bytes]) -> dg.MarkdownMetadataValue:
    """PNGs by title inside the page itself, so that they need no server and no path.

    All of a page in one value: the UI shows a long one on a click, and one click is better than seven.
    """
    parts = (f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})" for title, png in pictures.items())
    return dg.MetadataValue.md("\n\n".join(parts))


def table(rows: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """Rows as a Markdown table; the columns are the first row's."""
    if not rows:
        return dg.MetadataValue.md("*none*")
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def run_link(tracking_uri: str, experiment_id: str, run_id: str) -> dg.UrlMetadataValue | dg.TextMetadataValue:
    """An MLflow run: a link where a server shows it, else how to look at it."""
    if tracking_uri.startswith(("http://", "https://")):
        return dg.MetadataValue.url(f"{tracking_uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}")
    return dg.MetadataValue.text(f"{run_id} (mlflow ui --backend-store-uri {without_password(tracking_uri)})")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")
