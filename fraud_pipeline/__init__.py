"""Payment-fraud detection: a pure domain, its adapters, and the Dagster code location."""
