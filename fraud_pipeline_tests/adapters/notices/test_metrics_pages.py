"""The figures of pages that our own processes make, and of what is no such page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import generate_latest

from fraud_pipeline.adapters.kafka.sink_metrics import SinkMetrics
from fraud_pipeline.adapters.live_metrics import LiveMetrics
from fraud_pipeline.adapters.notices.metrics_pages import figures_of, read_pages
from fraud_pipeline.adapters.stream.stream_exposition import stream_registry
from fraud_pipeline.adapters.stream.stream_metrics import StreamMetrics
from fraud_pipeline_tests.notice_receivers import Answer, receiving
from serving.metrics import exposition


def scorer_page() -> str:
    metrics = StreamMetrics()
    metrics.records = 500
    metrics.decisions.update({("APPROVE", "3"): 300, ("BLOCK", "3"): 100})
    metrics.degraded.update({"shared_state_lag": 7, "ledger": 5})
    metrics.dead_letters.update({"malformed": 2, "id_conflict": 1})
    metrics.lag.update({0: 40, 1: 2})
    return generate_latest(stream_registry(metrics, lambda: None)).decode()


def sink_page() -> str:
    metrics = SinkMetrics()
    metrics.rows.labels("decisions").inc(90)
    metrics.repeats.labels("decisions").inc(8)
    metrics.bad.labels("decisions", "malformed").inc(2)
    metrics.lag.labels("decisions", "0").set(17)
    return generate_latest(metrics.registry).decode()


def service_page(*, replica: bool = False) -> str:
    """As the service makes it, of a runtime that has begun no scorer."""
    metrics = LiveMetrics()
    metrics.decisions.update({("APPROVE", "3"): 10, ("REVIEW", "3"): 2})
    metrics.degraded = 4
    counts = SimpleNamespace(
        log_away=True, relayed=0, in_flight=0, relay_errors=0, own_payments=0, forgotten=0, overtaken=0, unsettled=0,
        view_errors=0, damaged=0, closed={},
    )  # fmt: skip
    runtime = SimpleNamespace(
        metrics=metrics, scorer=None, models=None, problems=["no champion"], replica_counts=lambda: counts if replica else None
    )  # fmt: skip
    return exposition(cast(Any, runtime))


def test_a_scorers_page() -> None:
    figures = figures_of(scorer_page())
    assert figures.role == "scorer"
    assert figures.values == {"taken": 500, "lag": 42, "decisions": 400, "dead_letters": 3, "degraded": 7}


def test_a_sinks_page() -> None:
    figures = figures_of(sink_page())
    assert figures.role == "sink"
    assert figures.values == {"taken": 100, "lag": 17, "dead_letters": 2}


def test_a_services_page() -> None:
    figures = figures_of(service_page())
    assert figures.role == "service"
    assert figures.values == {"ready": 0, "decisions": 12, "degraded": 4, "journal": 0}
    assert figures_of(service_page(replica=True)).values["log_away"] == 1


def test_a_new_process_has_the_metric_that_it_is_known_by() -> None:
    empty = generate_latest(stream_registry(StreamMetrics(), lambda: None)).decode()
    assert figures_of(empty).role == "scorer"
    assert figures_of(generate_latest(SinkMetrics().registry).decode()).role == "sink"


@pytest.mark.parametrize("page", ["", "<html>hello</html>", "up 1\n", "fraud_scorer_lag{partition= 5\n"])
def test_what_is_no_page_of_ours_is_said(page: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        figures_of(page)


def test_each_page_is_read_and_each_trouble_is_its_own() -> None:
    with (
        receiving(Answer(body=sink_page().encode())) as sink,
        receiving(Answer(body=scorer_page().encode())) as scorer,
        receiving(Answer(503)) as ill,
        receiving(Answer(body=b"hello")) as other,
        receiving() as gone,
    ):
        gone.close()
        urls = [f"{each.url}/metrics" for each in (sink, scorer, ill, other, gone)]
        found = read_pages(urls, timeout_s=30)
        assert sink.posted[0].path == "/metrics"
    assert list(found) == urls
    roles = [figures.role if figures else None for figures, _ in found.values()]
    assert roles == ["sink", "scorer", None, None, None]
    problems = [problem for _, problem in found.values()]
    assert problems[:3] == ["", "", "HTTP 503"]
    assert problems[3].startswith("its page cannot be read: ")
    assert "refused" in problems[4]


def test_a_page_that_never_comes_costs_its_time_and_no_more() -> None:
    with receiving(Answer(None)) as hanging, receiving(Answer(drips=True)) as dripping:
        found = read_pages([hanging.url, dripping.url], timeout_s=0.3)
    assert list(found.values()) == [(None, "no answer within 0.3 s")] * 2


def test_nothing_to_read() -> None:
    assert read_pages([]) == {}
