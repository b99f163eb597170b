"""What people are to be told, and how far each channel is with it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# Frozen copies of the types in ledger_schema: a migration must go on doing what it did.
UTC_TIME = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("notice_id", ROW_ID, nullable=False, autoincrement=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("episode", sa.String, nullable=False),
        sa.Column("resolves", sa.Boolean, nullable=False),
        sa.Column("severity", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("link", sa.String),
        sa.Column("at", UTC_TIME, nullable=False),
        sa.Column("told_at", UTC_TIME, nullable=False),
        sa.PrimaryKeyConstraint("notice_id", name="pk_notices"),
        sa.UniqueConstraint("kind", "episode", "resolves", name="uq_notices_kind_episode_resolves"),
        sa.CheckConstraint("severity IN ('info', 'warning', 'critical')", name=op.f("ck_notices_severity")),
    )
    op.create_index("ix_notices_told_at", "notices", ["told_at"])
    op.create_table(
        "notice_deliveries",
        sa.Column("notice_id", sa.BigInteger, nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("asked_at", UTC_TIME, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", UTC_TIME),
        sa.Column("delivered_at", UTC_TIME),
        sa.Column("failed_at", UTC_TIME),
        sa.Column("last_error", sa.Text),
        sa.PrimaryKeyConstraint("notice_id", "channel", name="pk_notice_deliveries"),
        sa.ForeignKeyConstraint(["notice_id"], ["notices.notice_id"], name="fk_notice_deliveries_notice_id"),
    )
    op.create_index("ix_notice_deliveries_next_attempt_at", "notice_deliveries", ["next_attempt_at"])


def downgrade() -> None:
    raise NotImplementedError("The ledger is the record of decisions: restore a backup instead of going back.")
