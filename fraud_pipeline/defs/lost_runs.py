"""Runs that a code server took with it when it was killed."""

import json

import dagster as dg
from dagster._core.storage.tags import GRPC_INFO_TAG

CUT_OFF = (
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
REASON = "The code server that ran it was restarted, and its runs ended with it."


def report_lost_runs(port: int) -> list[str]:
    """Report as failed what still counts as running in a code server on this port, of the instance of DAGSTER_HOME.

    For the code server's own start: nothing that it ran can live then. A run inside `fraud run` has no such server and is left
    alone. Returns the runs' ids.
    """
    with dg.DagsterInstance.get() as instance:
        lost = []
        for run in instance.get_runs(dg.RunsFilter(statuses=list(CUT_OFF))):
            if json.loads(run.tags.get(GRPC_INFO_TAG, "{}")).get("port") == port:
                instance.report_run_failed(run, REASON)
                lost.append(run.run_id)
    return lost
