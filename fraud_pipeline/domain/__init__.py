"""The domain: no I/O, clock, environment, logging or Dagster in here."""
