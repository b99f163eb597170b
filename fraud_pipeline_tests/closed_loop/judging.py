"""After the feed: is every payment decided once, everywhere, and who was the better champion on what came later."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline_tests.closed_loop.decisions import DecisionWatch
from fraud_pipeline_tests.closed_loop.feed import Gateway, LiveWorld
from fraud_pipeline_tests.closed_loop.sabotage import open_registry
from fraud_pipeline_tests.closed_loop.stack import Stack


@dataclass(frozen=True, slots=True)
class Counts:
    """Every payment that was sent has one decision in the topic and one in the ledger, or it is counted here."""

    sent: int
    by_rest: int
    failed_requests: int
    refused_attempts: int
    lost_messages: int
    doubled: int
    stray: int
    not_in_ledger: int
    kafka_failed: int

    @property
    def whole(self) -> bool:
        """Whether nothing failed, was lost, or came twice."""
        return not any(
            (self.failed_requests, self.lost_messages, self.doubled, self.stray, self.not_in_ledger, self.kafka_failed)
        )


def count(stack: Stack, world: LiveWorld, gateway: Gateway, decisions: DecisionWatch) -> Counts:
    """Compare what was sent with the topic `decisions` and with the ledger."""
    sent, decided = world.sent, decisions.count
    rows = stack.rows("SELECT transaction_id FROM decisions WHERE role = 'decided'")
    in_ledger = [str(row[0]) for row in rows]
    unique = set(in_ledger)
    return Counts(
        sent=len(sent), by_rest=sum(route == "rest" for route in sent.values()), failed_requests=len(gateway.failed),
        refused_attempts=len(gateway.refused), lost_messages=sum(not decided[each] for each in sent),
        doubled=sum(each > 1 for each in decided.values()) + len(in_ledger) - len(unique),
        stray=sum(each not in sent for each in decided) + len(unique - set(sent)),
        not_in_ledger=sum(each not in unique for each in sent), kafka_failed=len(world.kafka_failed),
    )  # fmt: skip


def compare_champions(
    stack: Stack, versions: Collection[int], *, first: date, last: date, frauds: Collection[str]
) -> dict[str, Any]:
    """PR-AUC of each version on the same days, by the simulation's truth: also of the frauds that nobody reported."""
    from sklearn.metrics import average_precision_score

    from fraud_pipeline.defs.resources import resources_for

    builder, registry = resources_for(stack.settings)["builder"], open_registry(stack)
    usable = [day for day in builder.usable_days(last + timedelta(days=1)) if day >= first]
    found: dict[str, Any] = {"first_day": first, "last_day": last}
    for version in versions:
        bundle = ModelBundle.load(registry.fetch(version))
        data = builder.rows(usable, as_of=last + timedelta(days=1), model_input=bundle.facts.model_input).data
        raw = bundle.score(np.ascontiguousarray(data.features)).raw
        truth = np.isin(data.transaction_id.astype(str), sorted(frauds))
        found |= {"payments": len(truth), "frauds": int(truth.sum())}
        found[f"version_{version}"] = round(float(average_precision_score(truth, raw)), 4)
    return found
