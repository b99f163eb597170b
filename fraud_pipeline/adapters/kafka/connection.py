"""From settings to librdkafka's configuration, and from its errors to ours. Nothing here connects before it is used."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from fraud_pipeline.errors import DependencyError, SettingsError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError
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

_REFUSED_LOGIN: Final = frozenset({-169, -181, 58})
"""librdkafka's _AUTHENTICATION and _SSL, and Kafka's SASL_AUTHENTICATION_FAILED."""


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


def admin(settings: KafkaSettings, *, heard: list[KafkaError] | None = None) -> AdminClient:
    """A client that asks and makes. Keep it until its answers are there: they end with it.

    `heard` gets, at the client's `poll`, what went wrong on the way to a broker: a wrong password is told only there.
    """
    from confluent_kafka.admin import AdminClient

    config = _config(settings, {}, (*CONSUMERS_ONLY, *PRODUCERS_ONLY))
    if heard is not None:
        config["error_cb"] = heard.append
    return AdminClient(config, logger=_quiet())


def dependency_error(
    settings: KafkaSettings, err: Exception, doing: str, *, heard: Sequence[KafkaError] = ()
) -> DependencyError:
    """What became impossible and why: `doing` as in "create the topics"; `heard` is what the client's error callback got."""
    from confluent_kafka import KafkaError, KafkaException

    cause = err.args[0] if isinstance(err, KafkaException) and err.args else err
    cause = next((one for one in heard if one.code() in _REFUSED_LOGIN), cause)  # to the caller it looks like no broker
    said, code = (cause.str(), cause.code()) if isinstance(cause, KafkaError) else (str(cause), None)
    said = said.rstrip(".") or "no answer in time"  # a TimeoutError has no words
    return DependencyError(
        f"Could not {doing}: Kafka at {settings.kafka_bootstrap_servers} says: {said}.", remedy=_remedy(code)
    )


def _remedy(code: int | None) -> str:
    from confluent_kafka import KafkaError

    if code in {KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE}:
        return "The broker may be too old: Apache Kafka 4.0 or newer is needed."
    if code in _REFUSED_LOGIN:
        names = ("SECURITY_PROTOCOL", "SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD", "SSL_CA_LOCATION")
        return f"Check {', '.join(OPTION + name for name in names)}."
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

    quiet = _quiet()  # it warns of what only consumers have
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


def _quiet() -> logging.Logger:
    """For a client that is asked once: its errors are raised, and its log would say them again at every attempt."""
    logger = logging.getLogger(f"{__name__}.quiet")
    logger.disabled = True
    return logger


def _variable(name: str) -> str:
    return OPTION + name.upper().replace(".", "_")


def _dotted(more: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in more.items()}
