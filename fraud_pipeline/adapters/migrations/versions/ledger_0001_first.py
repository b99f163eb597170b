"""The first ledger: writers, transactions, decisions, alerts, labels, promotions, drift episodes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Frozen copies of the types in ledger_schema: a migration must go on doing what it did.
UTC_TIME = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_log()
    _create_decisions()
    _create_labels()
    _create_promotions()
    _create_drift()
    _forbid_changes_to_promotions()


def _create_log() -> None:
    op.create_table(
        "writers",
        sa.Column("writer", sa.String, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("writer", name="pk_writers"),
    )
    op.create_table(
        "transactions",
        sa.Column("transaction_id", sa.String, nullable=False),
        sa.Column("event_time", UTC_TIME, nullable=False),
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
        sa.Column("received_at", UTC_TIME, nullable=False),
        sa.PrimaryKeyConstraint("transaction_id", name="pk_transactions"),
        sa.UniqueConstraint("writer", "sequence", name="uq_transactions_writer_sequence"),
    )
    op.create_index("ix_transactions_received_at", "transactions", ["received_at"])
    op.create_index("ix_transactions_customer_id_event_time", "transactions", ["customer_id", "event_time"])


def _create_decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("transaction_id", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("model_version", sa.String, nullable=False),
        sa.Column("decided_at", UTC_TIME, nullable=False),
        sa.Column("decision", sa.String, nullable=False),
        sa.Column("fraud_probability", sa.Double, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("features", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("transaction_id", "role", name="pk_decisions"),
        sa.CheckConstraint("role IN ('decided', 'shadow')", name=op.f("ck_decisions_role")),
    )
    op.create_index("ix_decisions_decided_at", "decisions", ["decided_at"])
    op.create_table(
        "alerts",
        sa.Column("transaction_id", sa.String, nullable=False),
        sa.Column("created_at", UTC_TIME, nullable=False),
        sa.Column("decision", sa.String, nullable=False),
        sa.Column("fraud_probability", sa.Double, nullable=False),
        sa.Column("closed_at", UTC_TIME),
        sa.Column("closed_by", sa.String),
        sa.PrimaryKeyConstraint("transaction_id", name="pk_alerts"),
    )
    op.create_index("ix_alerts_closed_at_created_at", "alerts", ["closed_at", "created_at"])


def _create_labels() -> None:
    op.create_table(
        "labels",
        sa.Column("label_id", ROW_ID, nullable=False, autoincrement=True),
        sa.Column("transaction_id", sa.String, nullable=False),
        sa.Column("is_fraud", sa.Boolean, nullable=False),
        sa.Column("source", sa.String, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("known_at", UTC_TIME, nullable=False),
        sa.Column("change", sa.SmallInteger),
        sa.Column("writer", sa.String),
        sa.Column("sequence", sa.BigInteger),
        sa.PrimaryKeyConstraint("label_id", name="pk_labels"),
        sa.CheckConstraint("change BETWEEN -1 AND 1", name=op.f("ck_labels_change")),
        sa.UniqueConstraint(
            "transaction_id",
            "is_fraud",
            "source",
            "author",
            "known_at",
            name="uq_labels_transaction_id_is_fraud_source_author_known_at",
        ),
        sa.UniqueConstraint("writer", "sequence", name="uq_labels_writer_sequence"),
    )
    op.create_index("ix_labels_known_at", "labels", ["known_at"])


def _create_promotions() -> None:
    op.create_table(
        "promotions",
        sa.Column("promotion_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("previous_id", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("previous_version", sa.BigInteger),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.Column("promoted_at", UTC_TIME, nullable=False),
        sa.PrimaryKeyConstraint("promotion_id", name="pk_promotions"),
        sa.UniqueConstraint("previous_id", name="uq_promotions_previous_id"),
        sa.CheckConstraint("promotion_id = previous_id + 1", name=op.f("ck_promotions_chain")),
        sa.CheckConstraint("kind IN ('promotion', 'rollback', 'forced')", name=op.f("ck_promotions_kind")),
    )


def _create_drift() -> None:
    op.create_table(
        "drift_episodes",
        sa.Column("episode_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("opened_at", UTC_TIME, nullable=False),
        sa.Column("champion_version", sa.BigInteger, nullable=False),
        sa.Column("verdict", sa.JSON, nullable=False),
        sa.Column("closed_at", UTC_TIME),
        sa.Column("close_reason", sa.Text),
        sa.Column("open_slot", sa.SmallInteger),
        sa.PrimaryKeyConstraint("episode_id", name="pk_drift_episodes"),
        sa.UniqueConstraint("open_slot", name="uq_drift_episodes_open_slot"),
    )
    op.create_table(
        "drift_attempts",
        sa.Column("episode_id", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("run_key", sa.String, nullable=False),
        sa.Column("as_of", UTC_TIME, nullable=False),
        sa.Column("requested_at", UTC_TIME, nullable=False),
        sa.Column("outcome", sa.String),
        sa.Column("run_id", sa.String),
        sa.PrimaryKeyConstraint("episode_id", "attempt", name="pk_drift_attempts"),
        sa.UniqueConstraint("run_key", name="uq_drift_attempts_run_key"),
        sa.ForeignKeyConstraint(["episode_id"], ["drift_episodes.episode_id"], name="fk_drift_attempts_episode_id"),
    )


def _forbid_changes_to_promotions() -> None:
    """Append-only by the database itself, not by good manners."""
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER promotions_no_{change.lower()} BEFORE {change} ON promotions "
                "BEGIN SELECT RAISE(ABORT, 'promotions is append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION refuse_promotion_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'promotions is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER promotions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON promotions "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_promotion_change()"
    )


def downgrade() -> None:
    raise NotImplementedError("The ledger is the record of decisions: restore a backup instead of going back.")
