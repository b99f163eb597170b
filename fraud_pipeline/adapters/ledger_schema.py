"""The ledger's tables, for SQLite and PostgreSQL alike.

Knows only names, types and constraints. How they come to be is in `migrations/`; a test holds the two equal. A change
here needs a migration there and a new SCHEMA_VERSION.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

SCHEMA_VERSION: Final = "0006"
"""The newest migration: compared with the database at every start, so that a start that needs none loads no Alembic."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """µs since 1970 UTC, exactly: how SQLite holds a moment."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(count: int) -> datetime:
    """The reverse of `microseconds`."""
    return _EPOCH + timedelta(microseconds=count)


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC: `timestamptz` in PostgreSQL, integer microseconds since 1970 in SQLite (which has no such type).

    Refuses a naive datetime: it would be read back as another moment.
    """

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(sa.BigInteger() if dialect.name == "sqlite" else sa.DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        return microseconds(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return moment_of(value) if dialect.name == "sqlite" else value.astimezone(UTC)


ROW_ID: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite numbers rows by itself only where the key is exactly INTEGER."""

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

writers = sa.Table(
    "writers",
    metadata,
    # Only writers whose log is the ledger itself have a row; a Kafka partition numbers its own records.
    sa.Column("writer", sa.String, primary_key=True),
    sa.Column("last_sequence", sa.BigInteger, nullable=False),
)

transactions = sa.Table(
    "transactions",
    metadata,
    sa.Column("transaction_id", sa.String, primary_key=True),
    sa.Column("event_time", UtcTime, nullable=False),
    sa.Column("customer_id", sa.String, nullable=False),
    sa.Column("merchant_id", sa.String, nullable=False),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.String, nullable=False),
    sa.Column("merchant_category", sa.String, nullable=False),
    sa.Column("channel", sa.String, nullable=False),
    sa.Column("country", sa.String),
    sa.Column("device_id", sa.String),
    sa.Column("latitude", sa.Double),
    sa.Column("longitude", sa.Double),
    sa.Column("attributes", sa.JSON, nullable=False),
    sa.Column("writer", sa.String, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("received_at", UtcTime, nullable=False),
    sa.UniqueConstraint("writer", "sequence"),
    sa.Index(None, "received_at"),
    sa.Index(None, "customer_id", "event_time"),
)

# No foreign key from decisions, alerts and labels to transactions: they come by topics of their own, in any order.
decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("transaction_id", sa.String, primary_key=True),
    # "decided": the answer that was given; "shadow": what the challenger would have said.
    sa.Column("role", sa.String, primary_key=True),
    sa.Column("model_version", sa.String, nullable=False),
    sa.Column("decided_at", UtcTime, nullable=False),
    sa.Column("decision", sa.String, nullable=False),
    sa.Column("fraud_probability", sa.Double, nullable=False),
    # Text, not JSON: a repeated request gets the stored answer byte for byte.
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("features", sa.LargeBinary, nullable=False),
    sa.CheckConstraint("role IN ('decided', 'shadow')", name="role"),
    sa.Index(None, "decided_at"),
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("transaction_id", sa.String, primary_key=True),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("decision", sa.String, nullable=False),
    sa.Column("fraud_probability", sa.Double, nullable=False),
    sa.Column("closed_at", UtcTime),
    sa.Column("closed_by", sa.String),
    sa.Index(None, "closed_at", "created_at"),
)

labels = sa.Table(
    "labels",
    metadata,
    sa.Column("label_id", ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("transaction_id", sa.String, nullable=False),
    sa.Column("is_fraud", sa.Boolean, nullable=False),
    sa.Column("source", sa.String, nullable=False),
    sa.Column("author", sa.String, nullable=False),
    sa.Column("known_at", UtcTime, nullable=False),
    # NULL while the label waits for its transaction; then the change it made and where it stands in the writer's log.
    sa.Column("change", sa.SmallInteger),
    sa.Column("writer", sa.String),
    sa.Column("sequence", sa.BigInteger),
    sa.CheckConstraint("change BETWEEN -1 AND 1", name="change"),
    sa.UniqueConstraint("transaction_id", "is_fraud", "source", "author", "known_at"),
    sa.UniqueConstraint("writer", "sequence"),
    sa.Index(None, "known_at"),
    # The few that wait for their transaction (writer NULL) or for their place in a Kafka log (sequence NULL).
    sa.Index(
        None, "writer", "transaction_id",
        sqlite_where=sa.text("sequence IS NULL"), postgresql_where=sa.text("sequence IS NULL"),
    ),
)  # fmt: skip

promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("promotion_id", sa.BigInteger, primary_key=True, autoincrement=False),
    # Unique on the promotion before it: of two at once one wins. 0 is "none before", because NULLs would not collide.
    sa.Column("previous_id", sa.BigInteger, nullable=False, unique=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("fingerprint", sa.String, nullable=False),
    sa.Column("previous_version", sa.BigInteger),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("promoted_at", UtcTime, nullable=False),
    sa.CheckConstraint("promotion_id = previous_id + 1", name="chain"),
    sa.CheckConstraint("kind IN ('promotion', 'rollback', 'forced')", name="kind"),
)

promotion_watches = sa.Table(
    "promotion_watches",
    metadata,
    sa.Column("promotion_id", sa.BigInteger, sa.ForeignKey("promotions.promotion_id"), primary_key=True),
    # Of two that add to the same one, the other finds a revision that it has not seen.
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("verdict", sa.String, nullable=False),
    # What was promised, what was counted, and how far decisions and labels were read.
    sa.Column("state", sa.JSON, nullable=False),
    # The limits with their values, and what was done about them.
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.CheckConstraint("verdict IN ('watching', 'passed', 'breached', 'superseded')", name="verdict"),
)

challengers = sa.Table(
    "challengers",
    metadata,
    # Numbered by us: of two appointments at once one wins.
    sa.Column("challenger_id", sa.BigInteger, primary_key=True, autoincrement=False),
    # NULL: from here on there is none.
    sa.Column("version", sa.BigInteger),
    sa.Column("fingerprint", sa.String),
    sa.Column("who", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("appointed_at", UtcTime, nullable=False),
    sa.CheckConstraint("(version IS NULL) = (fingerprint IS NULL)", name="whole"),
)

drift_episodes = sa.Table(
    "drift_episodes",
    metadata,
    sa.Column("episode_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("opened_at", UtcTime, nullable=False),
    sa.Column("champion_version", sa.BigInteger, nullable=False),
    sa.Column("verdict", sa.JSON, nullable=False),
    sa.Column("closed_at", UtcTime),
    sa.Column("close_reason", sa.Text),
    # 1 while open, NULL when closed, and unique: never two open episodes, in either database.
    sa.Column("open_slot", sa.SmallInteger, unique=True),
)

drift_attempts = sa.Table(
    "drift_attempts",
    metadata,
    sa.Column("episode_id", sa.BigInteger, sa.ForeignKey("drift_episodes.episode_id"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("run_key", sa.String, nullable=False, unique=True),
    sa.Column("as_of", UtcTime, nullable=False),
    sa.Column("requested_at", UtcTime, nullable=False),
    sa.Column("outcome", sa.String),
    sa.Column("run_id", sa.String),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    # SHA-256 of the key's secret, in hexadecimal; the secret itself is nowhere.
    sa.Column("hash", sa.String, nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("revoked_at", UtcTime),
)

sink_positions = sa.Table(
    "sink_positions",
    metadata,
    sa.Column("topic", sa.String, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
    # The ledger holds what the topic says in [first_offset, next_offset): moved in the transaction that writes the rows.
    sa.Column("first_offset", sa.BigInteger, nullable=False),
    sa.Column("next_offset", sa.BigInteger, nullable=False),
)

minute_closings = sa.Table(
    "minute_closings",
    metadata,
    sa.Column("writer", sa.String, primary_key=True),
    sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),
    # The place in the writer's log at which the minute was closed.
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("by_clock", sa.Boolean, nullable=False),
    sa.Index(None, "writer", "sequence"),
)

notices = sa.Table(
    "notices",
    metadata,
    sa.Column("notice_id", ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("episode", sa.String, nullable=False),
    sa.Column("resolves", sa.Boolean, nullable=False),
    sa.Column("severity", sa.String, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("link", sa.String),
    # When it was so: a moment of the data's clock, for what is about data. `told_at` is the machine's.
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("told_at", UtcTime, nullable=False),
    # Once per episode: of two that tell the same at once one wins.
    sa.UniqueConstraint("kind", "episode", "resolves"),
    sa.CheckConstraint("severity IN ('info', 'warning', 'critical')", name="severity"),
    sa.Index(None, "told_at"),
)

notice_deliveries = sa.Table(
    "notice_deliveries",
    metadata,
    sa.Column("notice_id", sa.BigInteger, sa.ForeignKey("notices.notice_id"), primary_key=True, autoincrement=False),
    sa.Column("channel", sa.String, primary_key=True),
    # From when on it is tried, which is also when one gives up: when it was first due, or was to be sent again.
    sa.Column("asked_at", UtcTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    # Not before then; a claim moves it past its lease, so that what a dead process claimed comes back. NULL: settled.
    sa.Column("next_attempt_at", UtcTime),
    sa.Column("delivered_at", UtcTime),
    # Given up: refused, or too long in vain.
    sa.Column("failed_at", UtcTime),
    sa.Column("last_error", sa.Text),
    sa.Index(None, "next_attempt_at"),
)
