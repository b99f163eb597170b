"""A stream's scorer put together as the settings say: its log, its states, the models, what it keeps; run until told to stop.

Nothing is opened before `run`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from fraud_pipeline.adapters.checkpoint_store import CheckpointStore
from fraud_pipeline.adapters.kafka.topics import Topics
from fraud_pipeline.adapters.ledger import Ledger
from fraud_pipeline.adapters.live_state import LiveStateStore
from fraud_pipeline.adapters.model_slot import POLL_S, ModelSlot, fetcher
from fraud_pipeline.adapters.state_view import FEED_TIMEOUT_S, StateView, view_prefix
from fraud_pipeline.adapters.stream.admission import Admission
from fraud_pipeline.adapters.stream.checkpoint_keeper import CheckpointKeeper
from fraud_pipeline.adapters.stream.deciding import BatchDecider
from fraud_pipeline.adapters.stream.event_log import EventLog, LogLost
from fraud_pipeline.adapters.stream.instance_slot import InstanceSlot
from fraud_pipeline.adapters.stream.landed_history import LandedHistory
from fraud_pipeline.adapters.stream.raw_rows import LedgerRawRows
from fraud_pipeline.adapters.stream.scorer_loop import Aftermath, ScorerLoop
from fraud_pipeline.adapters.stream.stream_metrics import StreamMetrics
from fraud_pipeline.adapters.stream.view_writing import ViewWriting
from fraud_pipeline.adapters.stream.writer_states import WriterStates
from fraud_pipeline.domain.feature_many_writers import warm
from fraud_pipeline.domain.feature_merged import MergedState
from fraud_pipeline.errors import DependencyError
from fraud_pipeline.settings import Settings

GROUP: Final = "fraud-scorer"
"""The consumer group, with the topics' prefix before it."""
GC_THRESHOLDS: Final = (50_000, 20, 50)
"""A batch makes tens of thousands of objects, none of them in a cycle: by default they would be looked through 50 times."""
OUTAGE_S: Final = 600.0
"""A broker that restarts is back in a minute, a cluster that is mended in ten; after that the supervisor and a person should know."""
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 10.0
"""Between two attempts to open the log again: it doubles from the first to this."""
log = logging.getLogger(__name__)

OpenLog = Callable[[Settings, Topics, str, str], EventLog]
"""(settings, topics, group, instance) -> the log."""
Beside = Callable[["StreamRuntime", Ledger], contextlib.AbstractContextManager[None]]
"""What runs in the same process while the scorer works, once it is the owner of its log."""


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


class StreamRuntime:
    """`run` works until `stop`; what it raises has left nothing half done."""

    def __init__(
        self,
        settings: Settings,
        open_log: OpenLog,
        *,
        admission: Admission | None = None,
        beside: Beside = lambda _runtime, _ledger: contextlib.nullcontext(),
        first_pause_s: float = FIRST_PAUSE_S,
        outage_s: float = OUTAGE_S,
    ) -> None:
        self.settings = settings
        self.metrics = StreamMetrics()
        self.topics = Topics(settings.topic_prefix)
        self.models: ModelSlot | None = None
        self.loop: ScorerLoop | None = None
        self._open_log = open_log
        self._admission = admission
        self._beside = beside
        self._first_pause_s, self._outage_s = first_pause_s, outage_s
        self._stopping = threading.Event()

    def stop(self) -> None:
        """From any thread or a signal's handler: end after the batch at hand."""
        self._stopping.set()

    def run(self) -> None:
        """Decide until `stop`. FraudError where it cannot go on.

        A log that goes away after a start is opened anew, with the states recovered as after a crash, for up to `outage_s`.
        """
        lost_at, pause_s = 0.0, self._first_pause_s
        while not self._stopping.is_set():
            before = self._commits()
            try:
                self._run_once()
            except (LogLost, DependencyError) as err:
                if (
                    self._commits() > before
                ):  # it worked until now: what is refused from the start is nothing to wait for
                    lost_at, pause_s = time.monotonic(), self._first_pause_s
                if not lost_at or time.monotonic() > lost_at + self._outage_s:
                    raise
                log.warning("the log is away, and is opened again in %g s: %s", pause_s, err)
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _run_once(self) -> None:
        settings = self.settings
        with contextlib.ExitStack() as opened:
            instance = settings.scorer_instance or opened.enter_context(InstanceSlot(settings.home, "scorers")).name
            ledger = opened.enter_context(Ledger.open(settings.ledger_url))
            warm()
            self.models = self._models(ledger)
            opened.callback(self.models.close)
            if settings.kafka_bootstrap_servers and not self._has_champion(self.models):
                return
            group = f"{settings.topic_prefix}{GROUP}"
            events = self._open_log(settings, self.topics, group, instance)
            opened.callback(events.close)
            checkpoints = CheckpointStore(settings.checkpoint_url)
            states = WriterStates(
                checkpoints, events, LandedHistory(LiveStateStore(settings.home, checkpoints, ledger, time_zone=settings.time_zone)),
                partitions=events.partition_count(), currency=settings.currency, time_zone=settings.time_zone,
                raw=LedgerRawRows(ledger.database),
            )  # fmt: skip
            keeper = CheckpointKeeper(states, self._shared, self.metrics)
            aftermath: list[Aftermath] = [keeper]
            if settings.state_view_url:
                prefix = view_prefix(settings.state_view_prefix, settings.topic_prefix)
                view = StateView(settings.state_view_url, prefix=prefix, timeout_s=FEED_TIMEOUT_S)
                opened.callback(view.close)
                writing = ViewWriting(view)
                opened.callback(writing.close)
                aftermath.append(writing)
            decider = BatchDecider(
                self.topics, self.models, self.metrics, control_share=settings.control_share, now=utc_now
            )
            self.loop = ScorerLoop(
                events, states, decider, self.metrics, currency=settings.currency, now=utc_now,
                admission=self._admission, aftermath=aftermath,
                executor=opened.enter_context(ThreadPoolExecutor(1, thread_name_prefix="commit")),
            )  # fmt: skip
            opened.callback(keeper.close)
            self._work(self.loop, keeper, ledger)

    def _has_champion(self, models: ModelSlot) -> bool:
        """Wait for the first one; False where we are to stop before.

        A state begins from the landed history, and that is whole when a champion was trained on it: a scorer that joined before
        would begin from none.
        """
        if models.champion is None:
            log.info("there is no champion yet: waiting for one (`fraud run` makes one)")
        while models.champion is None:
            if self._stopping.wait(POLL_S):
                return False
        return True

    def _work(self, loop: ScorerLoop, keeper: CheckpointKeeper, ledger: Ledger) -> None:
        loop.start()
        gc.collect()
        gc.freeze()  # what is there now stays: looking through all of it again and again would hold payments up
        gc.set_threshold(*GC_THRESHOLDS)
        log.info("the scorer reads %s", self.topics.transactions)
        with self._beside(self, ledger):
            while not self._stopping.is_set():
                loop.step()
            loop.finish()
        keeper.keep_now(loop.owned)
        log.info("the scorer ends; nothing is open")

    def _models(self, ledger: Ledger) -> ModelSlot:
        settings = self.settings
        fetch = fetcher(settings.bundles_dir, settings.mlflow_tracking_uri, settings.artifacts_dir)
        models = ModelSlot(ledger, fetch, now=utc_now, challenger_share=settings.challenger_share)
        models.refresh()
        models.watch()
        return models

    def _commits(self) -> int:
        return sum(self.metrics.stages["commit"].counts)

    def _shared(self) -> tuple[MergedState, dict[int, int]]:
        assert self.loop is not None and self.loop.merged is not None  # noqa: PT018
        return self.loop.merged, self.loop.shared_offsets


def stream_runtime(settings: Settings) -> StreamRuntime:
    """A scorer of Kafka where it is named; else of the log in the home's own file, whose ledger it keeps too."""
    if settings.kafka_bootstrap_servers:
        return StreamRuntime(settings, kafka_log)
    return StreamRuntime(settings, embedded_log, beside=ledger_kept)


def embedded_log(settings: Settings, topics: Topics, group: str, instance: str) -> EventLog:  # noqa: ARG001 one process
    """The log in the home's file; its topics are made where they are not there."""
    from fraud_pipeline.adapters.embedded.embedded_log import EmbeddedLog
    from fraud_pipeline.adapters.embedded.one_log import refuse_others_states
    from fraud_pipeline.adapters.embedded.stream_file import StreamFile
    from fraud_pipeline.adapters.embedded.topics import embedded_topics

    with StreamFile(settings.stream_file) as file:
        file.create(embedded_topics(topics))
    refuse_others_states(settings.stream_file, topics.transactions, group, CheckpointStore(settings.checkpoint_url))
    return EmbeddedLog(settings.stream_file, topic=topics.transactions, shared_topic=topics.shared_state, group=group)


@contextlib.contextmanager
def ledger_kept(runtime: StreamRuntime, ledger: Ledger) -> Iterator[None]:
    """The embedded log's payments and decisions reach the ledger while the scorer works; it ends where that cannot be."""
    from fraud_pipeline.adapters.embedded.sink_running import EmbeddedSink

    settings = runtime.settings
    sink = EmbeddedSink(
        settings.stream_file, ledger, runtime.topics, currency=settings.currency,
        retention_days=settings.ledger_retention_days, now=utc_now, failed=runtime.stop,
    )  # fmt: skip
    sink.start()
    try:
        yield
    finally:
        sink.end()


def kafka_log(settings: Settings, topics: Topics, group: str, instance: str) -> EventLog:
    """The log in Kafka."""
    from fraud_pipeline.adapters.embedded.one_log import refuse_beside_file
    from fraud_pipeline.adapters.kafka.kafka_log import KafkaLog

    refuse_beside_file(settings.stream_file, topics.transactions)
    return KafkaLog(
        settings, topic=topics.transactions, shared_topic=topics.shared_state, group=group, instance=instance
    )
