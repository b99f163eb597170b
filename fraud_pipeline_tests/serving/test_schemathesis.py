"""Schemathesis, with all its checks, from the OpenAPI document to a running service: the document says what the service does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fraud_pipeline_tests.service_process import ServiceProcess
from serving.openapi import openapi_document

pytestmark = pytest.mark.slow

EXAMPLES = 40
"""Per operation and phase: about 20 s in all."""
CONFIG = {
    "output": {"sanitization": {"enabled": False}},
    # A batch of 5,001 is refused by its size.
    "operations": [
        # Without a Dagster it is 503, and says so.
        {"include-path": "/drift/run", "checks": {"not_a_server_error": {"expected-statuses": [202, "4xx", 503]}}},
    ],
    "checks": {"negative_data_rejection": {"expected-statuses": [401, 403, 404, 405, 406, 409, 413, 415, 422, 503]}},
}
schemathesis.openapi.format(
    # What the schema cannot say, and its description does: recent, and in Python's range.
    "date-time",
    st.integers(0, 80 * 86_400).map(lambda ago_s: (datetime.now(UTC) - timedelta(seconds=ago_s)).isoformat()),
)
schema = schemathesis.openapi.from_dict(openapi_document(), config=schemathesis.Config.from_dict(CONFIG))


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_service_does_what_its_document_says(case: Any, scoring_service: ServiceProcess) -> None:
    case.call_and_validate(base_url=scoring_service.url)
