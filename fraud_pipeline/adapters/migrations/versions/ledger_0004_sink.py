"""What the sink of the stream keeps beside the rows: how far it is, when minutes were closed, which labels are under way."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sink_positions",
        sa.Column("topic", sa.String, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("first_offset", sa.BigInteger, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name="pk_sink_positions"),
    )
    op.create_table(
        "minute_closings",
        sa.Column("writer", sa.String, nullable=False),
        sa.Column("minute", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("by_clock", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("writer", "minute", name="pk_minute_closings"),
    )
    op.create_index("ix_minute_closings_writer_sequence", "minute_closings", ["writer", "sequence"])
    op.create_index(
        "ix_labels_writer_transaction_id",
        "labels",
        ["writer", "transaction_id"],
        sqlite_where=sa.text("sequence IS NULL"),
        postgresql_where=sa.text("sequence IS NULL"),
    )


def downgrade() -> None:
    raise NotImplementedError("The ledger is the record of decisions: restore a backup instead of going back.")
