"""The Dagster graph: thin assets, checks, jobs and sensors over the adapters and the domain. Nothing happens on import."""
