"""Starting a job of the Dagster graph from outside of it: through its webserver's GraphQL, without importing Dagster."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from fraud_pipeline.errors import DependencyError

TIMEOUT_S: Final = 8.0
"""Dagster answers within a second or two, after having the code location check the run; a request here may take 10 s."""
MONITOR: Final = "monitor"
CODE_LOCATION: Final = "fraud_pipeline"
"""As workspace.yaml names it."""
REPOSITORY: Final = "__repository__"
"""Dagster's own name for what a code location defines."""
REQUESTED_BY: Final = "fraud/requested_by"
MOST_BYTES: Final = 1_000_000
"""Of an answer: a run's id fits, an error with its stack too."""
_LAUNCH: Final = """
mutation Launch($executionParams: ExecutionParams!) {
  launchRun(executionParams: $executionParams) {
    __typename
    ... on LaunchRunSuccess { run { runId status } }
    ... on Error { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that Dagster has taken; `url` is its page."""

    run_id: str
    status: str
    url: str


class DagsterRuns:
    """Jobs of the code location behind the webserver at `url`; empty where there is none."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        # Not through a proxy of the environment: the webserver is a neighbour.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def start(self, job: str = MONITOR, *, requested_by: str) -> StartedRun:
        """Ask for a run of a job; it is queued or started when this returns, and not yet done.

        Raises DependencyError, with what to do, where no Dagster is configured, nothing answers, or it refuses.
        """
        if not self._url:
            raise DependencyError(
                "No Dagster is configured (FRAUD_DAGSTER_URL is empty).",
                remedy="Start one (`make dev`) and set FRAUD_DAGSTER_URL to its address.",
            )
        parameters = {
            "selector": {
                "repositoryLocationName": CODE_LOCATION, "repositoryName": REPOSITORY, "jobName": job,
            },
            "runConfigData": {},
            "executionMetadata": {"tags": [{"key": REQUESTED_BY, "value": requested_by}]},
        }  # fmt: skip
        answer = self._post({"query": _LAUNCH, "variables": {"executionParams": parameters}})
        launched = _launched(answer)
        if launched.get("__typename") != "LaunchRunSuccess":
            raise self._refused(job, launched)
        run = launched["run"]
        return StartedRun(run["runId"], run["status"], f"{self._url}/runs/{run['runId']}")

    def _post(self, query: dict[str, Any]) -> Any:
        if urlsplit(self._url).scheme not in ("http", "https"):
            raise self._away("the address is not of http:// or https://")
        request = urllib.request.Request(  # noqa: S310 the scheme is checked above
            f"{self._url}/graphql", data=orjson.dumps(query), headers={"Content-Type": "application/json"}
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                return orjson.loads(response.read(MOST_BYTES))
        except urllib.error.HTTPError as err:
            with err:
                raise self._away(f"it answered {err.code} to GraphQL") from err
        except TimeoutError as err:
            raise self._silent() from err
        except urllib.error.URLError as err:  # before anything was sent
            raise self._away(str(err.reason)) from err
        except (OSError, HTTPException) as err:
            raise self._away(str(err) or type(err).__name__) from err
        except orjson.JSONDecodeError as err:
            raise self._away("what answers is no Dagster webserver") from err

    def _away(self, reason: str) -> DependencyError:
        return DependencyError(
            f"Dagster at {self._url} does not answer: {reason}.",
            remedy="Start it (`make dev`), or set FRAUD_DAGSTER_URL to where it is.",
        )

    def _silent(self) -> DependencyError:
        return DependencyError(
            f"Dagster at {self._url} did not answer within {self._timeout_s:g} s: the run may have been started.",
            remedy=f"Look at {self._url}/runs before asking again.",
        )

    def _refused(self, job: str, launched: dict[str, Any]) -> DependencyError:
        kind = launched.get("__typename", "an answer of another form")
        reasons = [launched.get("message"), *(error.get("message") for error in launched.get("errors") or ())]
        said = "; ".join(reason.strip().splitlines()[0] for reason in reasons if reason and reason.strip())
        if kind == "PipelineNotFoundError":
            remedy = (
                f"It must serve this project's code location {CODE_LOCATION}: `make dev`, or see {self._url}/locations."
            )
        else:
            remedy = f"Look at {self._url}/locations; `make dev` serves this project's graph."
        return DependencyError(f"Dagster at {self._url} did not start {job}: {said or kind}.", remedy=remedy)


def _launched(answer: Any) -> dict[str, Any]:
    """The mutation's result; where GraphQL itself refuses, its errors in the same form."""
    if not isinstance(answer, dict):
        return {}
    launched = (answer.get("data") or {}).get("launchRun")
    return launched if isinstance(launched, dict) else {"errors": answer.get("errors")}
