"""How a promoted model does: what it promised, what was counted since, and the verdict."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# A frozen copy of the type in ledger_schema: a migration must go on doing what it did.
UTC_TIME = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "promotion_watches",
        sa.Column("promotion_id", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("verdict", sa.String, nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.Column("started_at", UTC_TIME, nullable=False),
        sa.Column("updated_at", UTC_TIME, nullable=False),
        sa.PrimaryKeyConstraint("promotion_id", name="pk_promotion_watches"),
        sa.ForeignKeyConstraint(
            ["promotion_id"], ["promotions.promotion_id"], name="fk_promotion_watches_promotion_id"
        ),
        sa.CheckConstraint(
            "verdict IN ('watching', 'passed', 'breached', 'superseded')", name=op.f("ck_promotion_watches_verdict")
        ),
    )


def downgrade() -> None:
    raise NotImplementedError("The ledger is the record of decisions: restore a backup instead of going back.")
