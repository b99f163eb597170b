"""Run by Alembic. The connection, with its transaction and lock already open, comes from `ledger_database.migrate`."""

from alembic import context

from fraud_pipeline.adapters.ledger_schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
