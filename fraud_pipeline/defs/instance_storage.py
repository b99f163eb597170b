"""The tables of Dagster's own storage, made and brought up to date."""

import tempfile
from pathlib import Path

import dagster as dg

CONFIG = """\
telemetry: {enabled: false}
storage: {postgres: {postgres_url: {env: FRAUD_DAGSTER_STORAGE_URL}}}
"""


def migrate_storage() -> None:
    """Do what `dagster instance migrate` does, to the PostgreSQL that FRAUD_DAGSTER_STORAGE_URL names.

    Opening it makes the tables where they are missing. The caller holds a lock: two at once would both migrate.
    """
    with tempfile.TemporaryDirectory(prefix="fraud-migrate-") as folder:
        Path(folder, "dagster.yaml").write_text(CONFIG)
        with dg.DagsterInstance.from_config(folder) as instance:
            instance.upgrade()
