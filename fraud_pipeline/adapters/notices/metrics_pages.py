"""The metrics pages of services, scorers and sinks, read all at once and reduced to the figures that rules judge.

Here, and nowhere else, stand the metrics' names.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from fraud_pipeline.adapters.notices.channel import NotDelivered
from fraud_pipeline.adapters.notices.http_exchange import get
from fraud_pipeline.domain.notice import without_secrets
from fraud_pipeline.domain.platform_rules import Figures, Role

PAGE_TIMEOUT_S: Final = 0.7
"""A page is made in milliseconds; one that is late now and then is no outage by the rules, and a tick is to take a second."""
_LONGEST_PAGE: Final = 4_000_000
_AT_ONCE: Final = 16

_MARKS: Final[Mapping[Role, str]] = {
    "scorer": "fraud_scorer_records_total",
    "sink": "fraud_sink_conflicts_total",
    "service": "fraud_ready",
}
"""A metric that each has from its start, and no other has."""
_SUMS: Final[Mapping[Role, Mapping[str, tuple[str, ...]]]] = {
    "service": {
        "ready": ("fraud_ready",),
        "decisions": ("fraud_decisions_total",),
        "degraded": ("fraud_degraded_decisions_total",),
        "journal": ("fraud_journal_entries",),
        "log_away": ("fraud_replica_log_away",),
    },
    "scorer": {
        "taken": ("fraud_scorer_records_total",),
        "lag": ("fraud_scorer_lag",),
        "decisions": ("fraud_scorer_decisions_total",),
        "dead_letters": ("fraud_scorer_dead_letters_total",),
    },
    "sink": {
        "taken": ("fraud_sink_rows_total", "fraud_sink_repeats_total", "fraud_sink_bad_messages_total"),
        "lag": ("fraud_sink_lag",),
        "dead_letters": ("fraud_sink_bad_messages_total",),
    },
}
_GREATEST: Final[Mapping[Role, Mapping[str, str]]] = {"scorer": {"degraded": "fraud_scorer_degraded_decisions_total"}}
"""By what a decision lacked: one that lacked two is in both, so the greatest is how many lacked something at least."""


def read_pages(addresses: Sequence[str], *, timeout_s: float = PAGE_TIMEOUT_S) -> dict[str, tuple[Figures | None, str]]:
    """Each address's figures, or None and why not."""
    if not addresses:
        return {}
    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(addresses)), thread_name_prefix="metrics") as pool:
        found = pool.map(lambda address: _read(address, timeout_s), addresses)
        return dict(zip(addresses, found, strict=True))


def figures_of(page: str) -> Figures:
    """The figures of a page in Prometheus' text format. ValueError where it is none, or not one of ours."""
    from prometheus_client.parser import text_string_to_metric_families

    sums: defaultdict[str, float] = defaultdict(float)
    greatest: defaultdict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name.startswith("fraud_") and math.isfinite(sample.value):
                sums[sample.name] += sample.value
                greatest[sample.name] = max(greatest[sample.name], sample.value)
    role = next((role for role, mark in _MARKS.items() if mark in sums), None)
    if role is None:
        raise ValueError("it has none of the metrics of a service, a scorer or a sink")
    values = {
        figure: sum(sums[name] for name in names)
        for figure, names in _SUMS[role].items()
        if any(name in sums for name in names)
    }
    values |= {figure: greatest[name] for figure, name in _GREATEST.get(role, {}).items() if name in greatest}
    return Figures(role, values)


def _read(address: str, timeout_s: float) -> tuple[Figures | None, str]:
    try:
        page = get(address, timeout_s=timeout_s, longest=_LONGEST_PAGE)
        return figures_of(page.decode("utf-8", "replace")), ""
    except NotDelivered as err:
        return None, without_secrets(err.reason)
    except ValueError as err:
        return None, f"its page cannot be read: {without_secrets(str(err))}"
