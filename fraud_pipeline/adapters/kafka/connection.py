"""From settings to librdkafka's configuration, and from its errors to ours. Nothing here connects before it is used."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from fraud_pipeline.errors import DependencyError, SettingsError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

BOOTSTRAP: Final = "FRAUD_KAFKA_BOOTSTRAP_SERVERS"
OPTION: Final = "FRAUD_KAFKA_"

EVERY_CLIENT: Final[dict[str, Any]] = {
    "client.id": "fraud-pipeline",
    # A broker that restarts is back in seconds; by default a client looks again after up to ten.
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    # Firewalls forget connections that are silent for minutes.
    "socket.keepalive.enable": True,
}
EVERY_PRODUCER: Final[dict[str, Any]] = {
    # Java's: so a customer is on the same partition whoever produces.
    "partitioner": "murmur2_random",
    # JSON shrinks to a fifth, at a tenth of what zstd costs.
    "compression.type": "lz4",
    # A dead letter is its message and headers about it: larger than any message of another topic may be.
    "message.max.bytes": 1_114_124,
}
DECIDED_BY_US: Final[dict[str, str]] = {
    "acks": "an acknowledged message must be on every replica in sync",
    "request.required.acks": "an acknowledged message must be on every replica in sync",
    "auto.offset.reset": "a position that the log does not have is a gap, which stops a writer and is never skipped",
    "enable.auto.commit": "offsets are committed in the transaction of the decisions, or never",
    "enable.auto.offset.store": "offsets are committed in the transaction of the decisions, or never",
    "enable.idempotence": "a message that is sent again must not be there twice",
    "group.id": "the group belongs to its topics; FRAUD_TOPIC_PREFIX separates installations",
    "isolation.level": "what a transaction took back must not be read",
    "partitioner": "whoever produces must put a customer on the same partition",
    "transactional.id": "it names who may write, and fences who was that before",
    "bootstrap.servers": f"{BOOTSTRAP} says it",
    "metadata.broker.list": f"{BOOTSTRAP} says it",
}
"""What cannot be passed through, and why."""
CONSUMERS_ONLY: Final = (
    "fetch.", "session.", "heartbeat.", "max.poll.", "queued.", "check.crcs", "group.", "partition.assignment.", "client.rack"
)  # fmt: skip
PRODUCERS_ONLY: Final = (
    "linger.", "batch.", "compression.", "queue.", "message.send.", "retries", "delivery.", "message.timeout.",
    "request.timeout.", "transaction.", "sticky.",
)  # fmt: skip
"""Beginnings of names: the other kind of client would ignore them with a warning at every start."""


class Option(Protocol):
    """A value that may be secret."""

    def get_secret_value(self) -> str: ...


class KafkaSettings(Protocol):
    """What this needs of the settings."""

    @property
    def kafka_bootstrap_servers(self) -> str: ...
    @property
    def kafka_options(self) -> Mapping[str, Option]: ...


def producer_config(settings: KafkaSettings, **more: Any) -> dict[str, Any]:
    """Configuration of a producer. `more` has underscores for dots; what was passed through goes over it.

    Raises:
        SettingsError: no broker is named, or an option is refused or unknown.
    """
    return _config(settings, {**EVERY_PRODUCER, **_dotted(more)}, CONSUMERS_ONLY)


def consumer_config(settings: KafkaSettings, *, group: str, **more: Any) -> dict[str, Any]:
    """Configuration of a consumer that reads only what was committed; the rest as `producer_config`."""
    ours = {"group.id": group, "isolation.level": "read_committed", "enable.auto.commit": False}
    return _config(settings, {**ours, **_dotted(more)}, PRODUCERS_ONLY)


def admin(settings: KafkaSettings) -> AdminClient:
    """A client that asks and makes. Keep it until its answers are there: they end with it."""
    from confluent_kafka.admin import AdminClient

    return AdminClient(_config(settings, {}, (*CONSUMERS_ONLY, *PRODUCERS_ONLY)), logger=logging.getLogger(__name__))


def dependency_error(settings: KafkaSettings, err: Exception, doing: str) -> DependencyError:
    """What became impossible and why: `doing` as in "create the topics"."""
    from confluent_kafka import KafkaError, KafkaException

    cause = err.args[0] if isinstance(err, KafkaException) and err.args else err
    said, code = (cause.str(), cause.code()) if isinstance(cause, KafkaError) else (str(cause), None)
    return DependencyError(
        f"Could not {doing}: Kafka at {settings.kafka_bootstrap_servers} says: {said}.", remedy=_remedy(code)
    )


def _remedy(code: int | None) -> str:
    from confluent_kafka import KafkaError

    if code in {KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE, KafkaError.INVALID_REQUEST}:
        return "The broker may be too old: Apache Kafka 4.0 or newer is needed."
    if code in {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL}:
        return f"Check {OPTION}SECURITY_PROTOCOL, {OPTION}SASL_MECHANISM, {OPTION}SASL_USERNAME, and {OPTION}SSL_CA_LOCATION."
    if code in {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }:
        return "This user may not: ask for the ACL (docs/streaming.md has the list)."
    return f"Check {BOOTSTRAP} and that the broker runs; on a laptop `fraud services up kafka` starts one."


def _config(settings: KafkaSettings, ours: Mapping[str, Any], not_for: tuple[str, ...]) -> dict[str, Any]:
    if not settings.kafka_bootstrap_servers:
        raise SettingsError(
            f"{BOOTSTRAP} is not set, and this needs Kafka.",
            remedy="Name the brokers; on a laptop `fraud services up kafka` starts one and says its address.",
        )
    options = _passed_through(settings)
    mine = {name: value for name, value in options.items() if not name.startswith(not_for)}
    return {"bootstrap.servers": settings.kafka_bootstrap_servers, **EVERY_CLIENT, **ours, **mine}


def _passed_through(settings: KafkaSettings) -> dict[str, str]:
    options = {name: value.get_secret_value() for name, value in settings.kafka_options.items()}
    for name in options:
        if name in DECIDED_BY_US:
            raise SettingsError(
                f"{_variable(name)} cannot be set: {DECIDED_BY_US[name]}.", remedy=f"Unset {_variable(name)}."
            )
    _refuse_unknown(options)
    return options


def _refuse_unknown(options: Mapping[str, str]) -> None:
    """A client without a broker connects nowhere, and complains like any other."""
    from confluent_kafka import KafkaException, Producer

    quiet = logging.getLogger(f"{__name__}.options")
    quiet.disabled = True  # it warns of what only consumers have
    for name, value in options.items():
        if name.startswith(("sasl.", "security.")):
            continue  # they need each other; making the real client tells
        try:
            Producer({name: value}, logger=quiet)
        except KafkaException as err:
            raise SettingsError(
                f"{_variable(name)} is not understood by the Kafka client: {err.args[0].str()}",
                remedy="Its settings are in librdkafka's CONFIGURATION.md.",
            ) from err


def _variable(name: str) -> str:
    return OPTION + name.upper().replace(".", "_")


def _dotted(more: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in more.items()}
