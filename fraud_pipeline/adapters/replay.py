"""A past range decided anew, into files of its own: identical under the bundle that decided it, a what-if under another.

Nothing that was decided is touched: the ledger is only read. Knows nothing of where bundles or logs come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa

from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.ledger_records import DecisionRecord
from fraud_pipeline.adapters.parquet_files import write_json, write_parquet
from fraud_pipeline.adapters.past_log import PastPayments
from fraud_pipeline.domain.bundle import ModelBundle
from fraud_pipeline.domain.decision import Decision
from fraud_pipeline.domain.decision_batch import decide_many
from fraud_pipeline.domain.shadow_comparison import NO_LABEL, VERDICTS
from fraud_pipeline.domain.thresholds import Costs
from fraud_pipeline.domain.what_if import WhatIf
from fraud_pipeline.errors import InputError

BundleOf = Callable[[str], ModelBundle]
"""A bundle by the version that decisions carry."""
LOGGED: Final = "logged"
"""In place of a version: each payment by the one that decided it."""
CIRCUMSTANCES: Final = ("decided_at", "processing_time_ms", "degraded")
"""What a decision says of its moment, and no bundle and no payment."""


@dataclass
class ReplayReport:
    """What came of it. `again` are payments that were decided by the same version; `identical` of them came out the same.

    Decisions that say that they lacked something (`degraded`) are counted apart: `degraded_again`, of which
    `degraded_identical` came out the same all the same. `undecided` had no decision (a history, or one that a service did not
    get to). `first_difference` is of `again`.
    """

    bundle: str
    payments: int = 0
    undecided: int = 0
    degraded: int = 0
    again: int = 0
    identical: int = 0
    degraded_again: int = 0
    degraded_identical: int = 0
    first_difference: dict[str, Any] | None = None
    versions: dict[str, int] = field(default_factory=dict)
    what_if: WhatIf = field(default_factory=WhatIf)

    @property
    def equal(self) -> bool:
        """Whatever this bundle had decided with all that belongs to it came out the same, bit for bit."""
        return self.identical == self.again

    def to_json(self) -> dict[str, Any]:
        return {
            "bundle": self.bundle,
            "payments": self.payments,
            "undecided": self.undecided,
            "degraded": self.degraded,
            "again": self.again,
            "identical": self.identical,
            "degraded_again": self.degraded_again,
            "degraded_identical": self.degraded_identical,
            "equal": self.equal,
            "first_difference": self.first_difference,
            "decided_by": dict(sorted(self.versions.items())),
            "what_if": self.what_if.as_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """How to decide: `bundle` is a version or LOGGED. Outcomes are those known at `now`; `maturity` after a payment."""

    bundle: str
    now: datetime
    control_share: float
    costs: Costs
    maturity: timedelta


class Replay:
    """Decides pages of the past and compares them with what the ledger says was decided."""

    def __init__(
        self, ledger: Ledger, plan: ReplayPlan, bundle_of: BundleOf, *, labels: Mapping[str, bool], out: Path
    ) -> None:
        """`labels` are the newest ones by payment. InputError where `out` holds another replay."""
        self._ledger = ledger
        self._plan = plan
        self._bundle_of = bundle_of
        self._labels = labels
        self._out = out
        if list(out.glob("part-*.parquet")):
            raise InputError(f"{out} holds the decisions of another replay.", remedy="Name a new folder with --out.")
        self.report = ReplayReport(plan.bundle)

    def run(self, pages: Iterable[PastPayments]) -> ReplayReport:
        """Decide them all; writes `part-NNNN.parquet` and `report.json`."""
        for page in pages:
            if len(page):
                write_parquet(self._out / f"part-{len(list(self._out.glob('part-*'))):04d}.parquet", self._page(page))
        write_json(self._out / "report.json", self.report.to_json())
        return self.report

    def _page(self, page: PastPayments) -> pa.Table:
        ids = [payment.transaction_id for payment in page.transactions]
        logged = {record.transaction_id: record for record in self._ledger.decided(ids)}
        decisions: list[Decision | None] = [None] * len(page)
        for version, rows in self._by_bundle(ids, logged).items():
            some = page.only(rows)
            made = decide_many(
                some.computed, self._bundle_of(version), some.transactions, decided_at=self._plan.now,
                control_share=self._plan.control_share,
            )  # fmt: skip
            for row, decision in zip(rows, made, strict=True):
                decisions[row] = decision
        self._compare(page, decisions, logged)
        return _table(page, decisions, logged)

    def _by_bundle(self, ids: Sequence[str], logged: Mapping[str, DecisionRecord]) -> dict[str, list[int]]:
        """The rows that each version decides; with LOGGED, payments without a decision stay without one."""
        if self._plan.bundle != LOGGED:
            return {self._plan.bundle: list(range(len(ids)))}
        found: dict[str, list[int]] = {}
        for row, identity in enumerate(ids):
            if identity in logged:
                found.setdefault(logged[identity].model_version, []).append(row)
        return found

    def _compare(
        self, page: PastPayments, decisions: Sequence[Decision | None], logged: Mapping[str, DecisionRecord]
    ) -> None:
        report, changes = self.report, list[tuple[int, str, Decision]]()
        report.payments += len(page)
        for row, (payment, decision) in enumerate(zip(page.transactions, decisions, strict=True)):
            record = logged.get(payment.transaction_id)
            if record is None or decision is None:
                report.undecided += 1
                continue
            given = Decision.from_json(record.payload, features=record.features)
            report.degraded += bool(given.degraded)
            report.versions[given.model_version] = report.versions.get(given.model_version, 0) + 1
            changes.append((row, given.decision, decision))
            if given.model_version == decision.model_version:
                self._again(given, decision, f"{page.writer}@{page.sequences[row]}")
        if changes:
            self._what_if(page, changes)

    def _again(self, given: Decision, decision: Decision, place: str) -> None:
        parted = differences(given, decision)
        if given.degraded:
            self.report.degraded_again += 1
            self.report.degraded_identical += not parted
            return
        self.report.again += 1
        if not parted:
            self.report.identical += 1
        elif self.report.first_difference is None:
            self.report.first_difference = {"transaction_id": given.transaction_id, "place": place, "fields": parted}

    def _what_if(self, page: PastPayments, changes: Sequence[tuple[int, str, Decision]]) -> None:
        payments = [page.transactions[row] for row, _, _ in changes]
        known = [self._labels.get(payment.transaction_id) for payment in payments]
        mature = [payment.event_time < self._plan.now - self._plan.maturity for payment in payments]
        self.report.what_if.add(
            np.array([VERDICTS.index(then) for _, then, _ in changes], np.int8),
            np.array([VERDICTS.index(decision.decision) for _, _, decision in changes], np.int8),
            label=np.array([NO_LABEL if fraud is None else int(fraud) for fraud in known], np.int8),
            mature=np.array(mature),
            amount=np.array([payment.amount_minor / 100 for payment in payments]),
            costs=self._plan.costs,
        )


def differences(given: Decision, again: Decision) -> dict[str, list[Any]]:
    """Where two decisions part, field by field as [given, again], circumstances aside; empty where they are the same bits."""
    same_moment = replace(again, **{name: getattr(given, name) for name in CIRCUMSTANCES})
    if same_moment.to_json() == given.to_json() and same_moment.features == given.features:
        return {}
    left, right = given.as_dict(), same_moment.as_dict()
    parted = {name: [left[name], right[name]] for name in left if left[name] != right[name]}
    if given.features != same_moment.features:
        parted["features"] = ["the logged vector", "another vector"]
    return parted


def _table(page: PastPayments, decisions: Sequence[Decision | None], logged: Mapping[str, DecisionRecord]) -> pa.Table:
    """A row a payment: where it stands, what was decided, and what would be now; nothing where nobody decided."""
    records = [logged.get(payment.transaction_id) for payment in page.transactions]

    def of(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([None if each is None else getattr(each, name) for each in decisions], kind)

    def then(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([None if each is None else getattr(each, name) for each in records], kind)

    reasons = [
        None if each is None else orjson.dumps([r._asdict() for r in each.reasons]).decode() for each in decisions
    ]
    return pa.table({
        "transaction_id": [payment.transaction_id for payment in page.transactions],
        "writer": [page.writer] * len(page),
        "sequence": pa.array(page.sequences, pa.int64()),
        "event_time": pa.array([payment.event_time for payment in page.transactions], pa.timestamp("us", tz="UTC")),
        "amount_minor": pa.array([payment.amount_minor for payment in page.transactions], pa.int64()),
        **{name: of(name, pa.string()) for name in ("decision", "model_version", "feature_schema")},
        **{name: of(name, pa.float64()) for name in ("fraud_probability", "anomaly_score", "raw_score")},
        "control": of("control", pa.bool_()),
        "risk_factors": of("risk_factors", pa.list_(pa.string())),
        "reasons": pa.array(reasons, pa.string()),
        "features": of("features", pa.binary()),
        "logged_decision": then("decision", pa.string()),
        "logged_version": then("model_version", pa.string()),
        "logged_probability": then("fraud_probability", pa.float64()),
    })  # fmt: skip
