"""Who challenges the champion."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A frozen copy of the type in ledger_schema: a migration must go on doing what it did.
UTC_TIME = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "challengers",
        sa.Column("challenger_id", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("version", sa.BigInteger),
        sa.Column("fingerprint", sa.String),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("appointed_at", UTC_TIME, nullable=False),
        sa.PrimaryKeyConstraint("challenger_id", name="pk_challengers"),
        sa.CheckConstraint("(version IS NULL) = (fingerprint IS NULL)", name=op.f("ck_challengers_whole")),
    )


def downgrade() -> None:
    raise NotImplementedError("The ledger is the record of decisions: restore a backup instead of going back.")
