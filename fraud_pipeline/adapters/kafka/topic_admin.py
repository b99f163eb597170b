"""Making the topics on a broker, and comparing those that are there with what they must be.

What exists is never changed: it may hold payments, and whoever made it otherwise may have had a reason. It is said.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from fraud_pipeline.adapters.kafka.connection import KafkaSettings, admin, dependency_error
from fraud_pipeline.adapters.kafka.topics import DAY_MS, PARTITIONS, SAFE_REPLICAS, TopicPlan, Topics, plans
from fraud_pipeline.errors import DependencyError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

ANSWER_S: Final = 30.0
"""Longest wait for the broker: a new cluster elects its controller in seconds."""
LOOK_S: Final = 0.05
"""Between two looks for a topic that was made: brokers hear of it within milliseconds."""
SMALLER_IS_WORSE: Final = ("retention.ms", "max.message.bytes", "min.insync.replicas")
"""Limits: more than proposed is no difference worth a word."""
UNLIMITED: Final = -1
"""As Kafka writes "for ever" in retention.ms."""

State = Literal["made", "right", "differs", "wrong", "missing"]


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it was found. `differs` works; `wrong` and `missing` do not."""

    topic: str
    partitions: int
    state: State
    said: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def works(self) -> bool:
        return self.state in {"made", "right", "differs"}


@dataclass(frozen=True, slots=True)
class Found:
    """What the broker says of a topic."""

    partitions: int
    replicas: int
    config: Mapping[str, str]


def create(
    settings: KafkaSettings,
    topics: Topics,
    *,
    partitions: int | None = None,
    replicas: int | None = None,
    answer_s: float = ANSWER_S,
) -> tuple[TopicState, ...]:
    """Make the topics that are not there, and verify the others; `replicas` None is the broker's default.

    Where `transactions` is there already and no count is given, its count holds for those that go with it.

    Raises:
        DependencyError: the broker does not answer, may not be asked by this user, or is too old.
    """
    broker = _Broker(settings, topics, answer_s)
    found = broker.found()
    wanted = _plans(topics, found, partitions, replicas or 1)
    made = broker.make([plan for plan in wanted if plan.name not in found], replicas)
    if any(plan.name not in found and plan.name not in made for plan in wanted):
        found = broker.found()  # another one made it at the same time
    return tuple(
        TopicState(plan.name, plan.partitions, "made") if plan.name in made else compare(plan, found.get(plan.name))
        for plan in wanted
    )


def verify(
    settings: KafkaSettings, topics: Topics, *, partitions: int | None = None, answer_s: float = ANSWER_S
) -> tuple[TopicState, ...]:
    """Compare what is there with what must be; without a count, that of `transactions` is the right one.

    Raises:
        DependencyError: as `create`.
    """
    found = _Broker(settings, topics, answer_s).found()
    replicas = found[topics.transactions].replicas if topics.transactions in found else 1
    return tuple(compare(plan, found.get(plan.name)) for plan in _plans(topics, found, partitions, replicas))


def compare(plan: TopicPlan, found: Found | None) -> TopicState:
    """One topic against its plan."""
    if found is None:
        return TopicState(plan.name, 0, "missing", ("it is not there",), "`fraud topics create` makes it.")
    said = []
    wrong = found.partitions != plan.partitions
    if wrong:
        said.append(f"it has {found.partitions} partitions and not {plan.partitions}")
    differing = {name: value for name, value in plan.config.items() if _differs(name, value, found.config.get(name))}
    said += [
        f"{name} is {_readable(name, found.config.get(name))} and not {_readable(name, value)}"
        for name, value in differing.items()
    ]
    if found.replicas >= SAFE_REPLICAS and found.config.get("unclean.leader.election.enable") == "true":
        differing["unclean.leader.election.enable"] = "false"
        said.append("unclean.leader.election.enable is true: acknowledged payments may be lost")
    state: State = "right"
    if said:
        state = "wrong" if wrong or set(differing) & set(plan.must) else "differs"
    return TopicState(plan.name, found.partitions, state, tuple(said), _remedy(plan, found, differing))


def _remedy(plan: TopicPlan, found: Found, differing: Mapping[str, str]) -> str:
    words = []
    if found.partitions > plan.partitions:
        words.append("A topic never gets fewer: make it anew, or let the others have as many.")
    elif found.partitions < plan.partitions:
        words.append(f"kafka-topics.sh --alter --topic {plan.name} --partitions {plan.partitions}")
    if differing:
        changes = ",".join(f"{name}={value}" for name, value in differing.items())
        words.append(f"kafka-configs.sh --alter --entity-type topics --entity-name {plan.name} --add-config {changes}")
    return "; ".join(words)


def _plans(topics: Topics, found: Mapping[str, Found], partitions: int | None, replicas: int) -> tuple[TopicPlan, ...]:
    there = found.get(topics.transactions)
    return plans(topics, partitions=partitions or (there.partitions if there else PARTITIONS), replicas=replicas)


class _Broker:
    """What is asked of it; every failure says what was wanted."""

    def __init__(self, settings: KafkaSettings, topics: Topics, answer_s: float) -> None:
        self._settings, self._answer_s = settings, answer_s
        self._names = [plan.name for plan in plans(topics, partitions=1)]
        self._heard: list[KafkaError] = []
        self._client = admin(settings, heard=self._heard)

    def found(self) -> dict[str, Found]:
        """Those of our topics that are there."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

        try:
            there = self._there()
            resources = [ConfigResource(ResourceType.TOPIC, name) for name in there]
            asked = self._client.describe_configs(resources) if resources else {}
            configs = {resource.name: _values(future.result(self._answer_s)) for resource, future in asked.items()}
        except (KafkaException, TimeoutError) as err:
            raise self._error(err, "look at the topics") from err
        return {
            name: Found(
                len(topic.partitions), min(len(each.replicas) for each in topic.partitions.values()), configs[name]
            )
            for name, topic in there.items()
        }

    def make(self, wanted: Sequence[TopicPlan], replicas: int | None) -> set[str]:
        """The names that were made, once every client sees them; not those that somebody else made meanwhile."""
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

        made: set[str] = set()
        new = [NewTopic(plan.name, plan.partitions, replicas or -1, config=plan.config) for plan in wanted]
        for name, future in (self._client.create_topics(new) if new else {}).items():
            try:
                future.result(self._answer_s)
                made.add(name)
            except (KafkaException, TimeoutError) as err:
                if not (isinstance(err, KafkaException) and err.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS):
                    raise self._error(err, f"create the topic {name}") from err
        deadline = time.monotonic() + self._answer_s
        while {plan.name for plan in wanted} - set(self._there()):  # the controller says yes before the brokers know
            if time.monotonic() > deadline:
                raise self._error(TimeoutError(), "see the topics that were made")
            time.sleep(LOOK_S)
        return made

    def _there(self) -> dict[str, Any]:
        from confluent_kafka import KafkaException

        try:
            there = self._client.list_topics(timeout=self._answer_s).topics
        except KafkaException as err:
            raise self._error(err, "look at the topics") from err
        return {name: there[name] for name in self._names if name in there and there[name].partitions}

    def _error(self, err: Exception, doing: str) -> DependencyError:
        self._client.poll(0)  # where the callbacks are called
        return dependency_error(self._settings, err, doing, heard=self._heard)


def _values(entries: Mapping[str, Any]) -> dict[str, str]:
    return {name: entry.value for name, entry in entries.items()}


def _differs(name: str, wanted: str, has: str | None) -> bool:
    if name in SMALLER_IS_WORSE and has is not None:
        return int(has) != UNLIMITED and int(has) < int(wanted)
    return has != wanted


def _readable(name: str, value: str | None) -> str:
    return f"{int(value) / DAY_MS:g} days" if name == "retention.ms" and value is not None else str(value)


def faults(states: Sequence[TopicState]) -> list[TopicState]:
    """Those with which nothing should be started."""
    return [state for state in states if not state.works]
