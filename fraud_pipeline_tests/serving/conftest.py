"""A running scoring service for the tests that need the whole HTTP stack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fraud_pipeline_tests.service_process import ServiceProcess, service_running
from fraud_pipeline_tests.serving.home import empty_home


@pytest.fixture(scope="session")
def scoring_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """`bentoml serve` on a home of its own, with a champion and without keys."""
    folder = tmp_path_factory.mktemp("service")
    home = empty_home(folder / "home").home
    environment = {"FRAUD_HOME": str(home), "FRAUD_DAGSTER_URL": ""}  # no test asks a developer's Dagster for runs
    with service_running(folder / "service.log", environment=environment) as service:
        yield service
