"""`fraud run`: the graph's own jobs, one after another, in this process.

The one way from the command line to Dagster. What is materialized and still current is not made again: a day is stale when
its content or any day before it changed, a training when its rows, labels or recipe did.
"""

import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import dagster as dg
from dagster import DagsterInstance

from fraud_pipeline import errors as fraud_errors
from fraud_pipeline.adapters.dataset_schemas import days_between
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.model_registry import ModelRegistry
from fraud_pipeline.adapters.promotions import current_challenger, current_champion, repair_alias
from fraud_pipeline.adapters.source_store import SourceStore, WorldManifest
from fraud_pipeline.adapters.world_source import land_world
from fraud_pipeline.dagster_home import COMMAND_LINE_CONFIG
from fraud_pipeline.definitions import load_definitions
from fraud_pipeline.defs.partitions import range_tags
from fraud_pipeline.defs.patience import AT_A_TERMINAL
from fraud_pipeline.defs.resources import resources_for
from fraud_pipeline.defs.training import period_limits, recipe_tag
from fraud_pipeline.domain.simulation_config import WorldConfig
from fraud_pipeline.errors import FraudError, InputError
from fraud_pipeline.pipeline_run import Progress, RunReport
from fraud_pipeline.settings import Settings

DAILY = ("transactions", "labels", "features")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""The command line says what happened; Dagster's own log is in its storage."""


CHECK_FAILED = "DagsterAssetCheckFailedError"


@dataclass
class Session:
    """One `fraud run`: what its stages share."""

    settings: Settings
    progress: Progress
    resources: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    _graph: tuple[dg.Definitions, DagsterInstance] | None = None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 2)

    def execute(
        self, job: str, *, tags: dict[str, str] | None = None, config: dict[str, Any] | None = None,
        only: Sequence[str] | None = None,
    ) -> bool:  # fmt: skip
        """Run a job of the graph to its end; False where a blocking check stopped it. An error of a step is raised."""
        with self.timed("dagster"):
            definitions, instance = self._graph = self._graph or self._load()
            definition = definitions.resolve_job_def(job)
        run_id = self.runs[job] = str(uuid.uuid4())
        instance.add_event_listener(run_id, self._listener(len(definition.graph.nodes)))
        result = definition.execute_in_process(
            instance=instance,
            run_id=run_id,
            tags={**(tags or {}), AT_A_TERMINAL: "yes"},
            run_config={**QUIET, **(config or {})},
            asset_selection=None if only is None else [dg.AssetKey(name) for name in only],
            raise_on_error=False,  # so that one report that fails takes no other step with it
        )
        failed = [(e.step_key, e.step_failure_data.error) for e in result.all_events if e.is_step_failure]
        stopped = [step for step, error in failed if error and error.cls_name == CHECK_FAILED]
        for step, error in failed:
            if error and error.cls_name != CHECK_FAILED:
                raise step_error(step, error, run_id)
        if not result.success and not stopped:
            raise FraudError(f"Run {run_id} of {job} failed.", remedy="`fraud dev` shows it.")
        return not stopped

    def _listener(self, steps: int) -> Any:
        done: set[str] = set()

        def listen(entry: Any) -> None:
            event = entry.dagster_event
            if event is None or not event.step_key:
                return
            if event.is_step_start:
                self.progress(event.step_key.replace("_", " "), len(done), steps)
            elif event.is_step_success or event.is_step_failure:
                done.add(event.step_key)
                if event.is_step_success:
                    self.seconds[event.step_key] = round(event.step_success_data.duration_ms / 1e3, 2)

        return listen

    def _load(self) -> tuple[dg.Definitions, DagsterInstance]:
        definitions = load_definitions(self.settings, resources=self.resources)
        return definitions, DagsterInstance.from_config(str(self.settings.dagster_home), COMMAND_LINE_CONFIG)


def run_stages(
    settings: Settings,
    *,
    from_scratch: bool,
    start: date | None,
    end: date | None,
    retrain: bool,
    as_of: date | None,
    shuffle_labels: bool,
    now: datetime,
    progress: Progress,
) -> RunReport:
    """See `pipeline_run.run_pipeline`."""
    session = Session(settings, progress, resources_for(settings))
    with session.timed("world"):
        world = _world(settings, now=now, progress=progress)
    last = end or as_of or world.end
    first = start or world.start
    if first >= last or (as_of is not None and as_of > last):
        raise InputError(f"There is no day from {first} to before {last} to train on as of {as_of or last}.")
    if from_scratch:
        forget_days(settings)
    done_days = _materialize_days(session, days_between(first, last))
    moment = as_of or last
    changed, reason = done_days > 0, "the days are materialized"
    if retrain:
        changed, reason = _train(session, moment, shuffle_labels=shuffle_labels, anew=from_scratch, changed=changed)
    return _report(session, moment, changed=changed, reason=reason)


def forget_days(settings: Settings) -> None:
    """Remove what was derived from the landed world: days, checkpoints, training sets. Models and promotions stay."""
    for folder in ("data", "checkpoints/history", "models"):
        shutil.rmtree(settings.home / folder, ignore_errors=True)


def step_error(step: str | None, error: Any, run_id: str) -> FraudError:
    """Our own error again from what Dagster kept of it, with the traceback as a note; any other one wrapped."""
    cause = error
    while cause.cause is not None:
        cause = cause.cause
    message = re.sub(rf"^[\w.]*{cause.cls_name}: ", "", cause.message.strip())
    kind = getattr(fraud_errors, cause.cls_name or "", None)
    if isinstance(kind, type) and issubclass(kind, FraudError) and kind is not fraud_errors.InvalidTransaction:
        raised = kind(message)
    else:
        raised = FraudError(f"{step} failed: {cause.cls_name}: {message}", remedy=f"`fraud dev` shows run {run_id}.")
    raised.add_note(error.to_string())
    return raised


def _world(settings: Settings, *, now: datetime, progress: Progress) -> WorldManifest:
    """The landed world; simulated by the settings where there is none."""
    source = SourceStore(settings.home)
    if source.exists():
        return source.manifest()
    config = WorldConfig(
        end=now.date(), customers=settings.customers, merchants=settings.merchants, days=settings.days,
        rate=settings.rate, fraud_rate=settings.fraud_rate, seed=settings.seed, currency=settings.currency,
    )  # fmt: skip
    return land_world(
        config,
        home=settings.home,
        created_at=now,
        progress=lambda done, total: progress("simulating payments", done, total),
    )


def _materialize_days(session: Session, days: Sequence[date]) -> int:
    """Run `ingest_days` over the range of days that are missing, unjudged or stale; returns how many were."""
    store = session.resources["store"]
    due = set(session.resources["feature_store"].stale_days(days))
    retired = session.resources["feature_store"].retired_days()
    for day in days:
        if day in retired:
            continue
        there = store.has_day("transactions", day) and store.has_day("labels", day)
        if not there or store.manifest("transactions", day).verdict == "unchecked":
            due.add(day)
    if due and not session.execute("ingest_days", tags=range_tags(min(due), max(due))):
        failed = [
            day
            for day in days
            if store.has_day("transactions", day) and store.manifest("transactions", day).verdict == "failed"
        ]
        raise InputError(
            f"The data checks stopped the run: {len(failed)} days failed ({', '.join(map(str, failed[:3]))}).",
            remedy="`fraud status` names them; the Dagster UI shows the rows (`fraud dev`).",
        )
    return len(due)


def _train(session: Session, as_of: date, *, shuffle_labels: bool, anew: bool, changed: bool) -> tuple[bool, str]:
    """Train, judge and promote unless that was done for these very rows; (whether anything was done, the outcome in words)."""
    settings = session.settings
    seed = settings.seed if shuffle_labels else None
    wanted = session.resources["builder"].fingerprint(as_of, limits=period_limits(settings), shuffle_seed=seed)
    with Ledger.open(settings.ledger_url) as ledger:
        registry = open_registry(settings)
        repair_alias(ledger, registry)
        before, in_shadow = current_champion(ledger), current_challenger(ledger)
        known = None if anew else _judged(registry, wanted, settings)
        promoted = {promotion.version for promotion in ledger.promotions()}
    if known is not None and before is not None and known.version == before.version:
        return changed, f"Version {known.version} is champion, trained on these very payments: nothing to do"
    if known is not None and known.verdict == "failed":
        return changed, f"Version {known.version}, trained on these very payments, failed its gates: {known.reason}"
    if known is not None and in_shadow is not None and known.version == in_shadow.version:
        return changed, f"Version {known.version}, trained on these very payments, decides in shadow: nothing to do"
    against = None if known is None or known.gates is None else known.gates.against_version
    if known is not None and known.version not in promoted and against == (before.version if before else None):
        session.execute("retrain", only=["champion_bundle"])  # a run was killed between the gates and the promotion
    else:
        config = {"as_of": as_of.isoformat(), "shuffle_labels": shuffle_labels}
        session.execute("retrain", config={"ops": {"training_set": {"config": config}}})
    with Ledger.open(settings.ledger_url) as ledger:
        after, challenger = current_champion(ledger), current_challenger(ledger)
        candidate = _judged(open_registry(settings), wanted, settings)
    if after is not None and candidate is not None and after.version == candidate.version:
        return True, f"Version {after.version} is the new champion"
    if after is not None:
        session.execute("monitor")
    if challenger is not None and candidate is not None and challenger.version == candidate.version:
        return (
            True,
            f"Version {candidate.version} passed its gates and decides in shadow for {settings.shadow_days} days of data",
        )
    version = f"Version {candidate.version}" if candidate else "The candidate"
    stays = f"; version {after.version} stays champion" if after else "; there is no champion"
    return True, f"{version} failed its gates: {candidate.reason if candidate else 'it was not judged'}{stays}"


def _judged(registry: ModelRegistry, training_set: str, settings: Settings) -> Any:
    """The newest judged version that was trained on this training set by this recipe."""
    recipe = recipe_tag(settings)
    for version in registry.versions():
        same = version.tags.get("training_set") == training_set and version.tags.get("recipe") == recipe
        if same and version.verdict != "unjudged":
            return version
    return None


def open_registry(settings: Settings) -> ModelRegistry:
    """The registry, outside of a Dagster run."""
    return ModelRegistry.open(
        settings.mlflow_tracking_uri, artifact_root=settings.artifacts_dir, cache_dir=settings.bundles_dir
    )


def _report(session: Session, as_of: date, *, changed: bool, reason: str) -> RunReport:
    settings, store = session.settings, session.resources["store"]
    registry = open_registry(settings)
    with Ledger.open(settings.ledger_url) as ledger:
        champion = current_champion(ledger)
    judged = [version for version in registry.versions() if version.verdict != "unjudged"]
    candidate = next((v for v in judged if "candidate" in v.aliases), None)
    days = {name: store.days(name) for name in DAILY}
    verdicts = {day: store.manifest("transactions", day).verdict for day in days["transactions"]}
    return RunReport(
        champion_version=champion.version if champion else None,
        candidate_version=candidate.version if candidate else None,
        promoted=bool(champion and candidate and champion.version == candidate.version),
        unchanged=not changed,
        as_of=as_of,
        gates=candidate.gates.results if candidate and candidate.gates else (),
        metrics=candidate.metrics if candidate else {},
        rows={name: sum(store.manifest(name, day).rows for day in found) for name, found in days.items()},
        seconds=session.seconds,
        reason=reason,
        home=settings.home,
        failed_days=tuple(day for day, verdict in verdicts.items() if verdict == "failed"),
        runs=session.runs,
    )
