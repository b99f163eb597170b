"""The drift pages as a browser asks the scoring service for them: the newest, and an earlier one by its name."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from fraud_pipeline.adapters.drift_report import write_verdict
from fraud_pipeline.adapters.drift_results import DriftResults
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.domain.drift import judge
from fraud_pipeline.errors import NotFound
from serving.information import drift_report


def asked(app: Starlette, query: str = "") -> Response:
    """What the handler answers to GET /drift/report with this query string."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/drift/report",
        "query_string": query.encode(),
        "headers": [],
        "app": app,
    }
    return asyncio.run(drift_report(Request(scope)))


def test_a_link_of_the_ui_opens_the_page_of_its_report(tmp_path: Path) -> None:
    sample = {"amount": np.random.default_rng(0).normal(size=400)}
    for day in (1, 8):
        as_of = date(2026, 3, day)
        path = tmp_path / "drift" / f"{as_of}-version-3.json"
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".html").write_text(f"<html>{as_of}</html>")
        now = datetime(2026, 3, 9, tzinfo=UTC) + timedelta(hours=day)
        write_verdict(path, judge(sample, sample), champion=3, as_of=as_of, now=now)
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        app = Starlette()
        app.state.runtime = SimpleNamespace(drift_results=lambda: DriftResults(tmp_path, ledger))
        assert asked(app).body == b"<html>2026-03-08</html>"
        earlier = asked(app, "report=2026-03-01-version-3")
        assert (earlier.body, earlier.media_type) == (b"<html>2026-03-01</html>", "text/html")
        with pytest.raises(NotFound, match=r"There is no drift report '\.\./secret'"):
            asked(app, "report=../secret")
