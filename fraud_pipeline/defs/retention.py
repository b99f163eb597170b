"""Once a day: what is old and needed by nothing goes."""

import dagster as dg

from fraud_pipeline.home_retention import apply_retention
from fraud_pipeline.settings import Settings


@dg.op(description="Deletes old days, reports and local bundles that nothing needs; see `fraud retention`.")
def delete_what_is_old(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Apply FRAUD_DATA_RETENTION_DAYS to the home."""
    done = apply_retention(settings)
    context.add_output_metadata(
        {
            "older than": str(done.cutoff),
            "days": len(done.days),
            "reports and plots": len(done.files),
            "bundles": len(done.bundles),
            "MB": round(done.freed_bytes / 1e6, 1),
            "old, but needed": dg.MetadataValue.json(done.needed),
        }
    )


@dg.job(description="Deletes what is older than FRAUD_DATA_RETENTION_DAYS and needed by nothing; 0 keeps everything.")
def retention() -> None:
    """The daily retention."""
    delete_what_is_old()


daily_retention = dg.ScheduleDefinition(
    name="daily_retention",
    job=retention,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every day at 03:30 UTC.",
)
