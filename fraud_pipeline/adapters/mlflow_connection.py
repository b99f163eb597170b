"""A quiet MLflow client whose failures are our errors, and that does not hang where MLflow is away."""

from __future__ import annotations

import logging
import os
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fraud_pipeline import telemetry
from fraud_pipeline.errors import DependencyError, FraudError, InputError, NotFound

PROBE_TIMEOUT_S: Final = 3
"""A server on a working network answers its health page in milliseconds."""
_LIMITS: Final = {
    # MLflow's own defaults retry an absent server for minutes; ours is asked again by whoever needs it.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_ALREADY_THERE: Final = "RESOURCE_ALREADY_EXISTS"
_NOT_THERE: Final = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
_OURS_TO_CORRECT: Final = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE")


class Connection:
    """MLflow's client and its address. Use `connect`."""

    def __init__(self, uri: str, client: Any) -> None:
        self.uri = uri
        self.client = client

    @property
    def is_server(self) -> bool:
        """An MLflow server, which keeps artifacts itself, rather than its database."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def address(self) -> str:
        """The address without a password."""
        return _shown(self.uri)

    def check(self) -> None:
        """DependencyError where it does not answer."""
        _probe(self.uri)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """MLflow's exceptions as ours."""
        from mlflow.exceptions import MlflowException

        try:
            with _quietly():
                yield
        except MlflowException as err:
            raise _our_error(err, self.uri) from err

    def create_experiment(self, name: str, location: str | None) -> str:
        """Make it, or find it where another process was quicker."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.create_experiment(name, artifact_location=location))
        except MlflowException as err:
            found = self.client.get_experiment_by_name(name) if err.error_code == _ALREADY_THERE else None
            if found is None:
                raise
            return str(found.experiment_id)

    def create_registered_model(self, name: str, description: str) -> None:
        """Make it; nothing happens where another process was quicker."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name, description=description)
        except MlflowException as err:
            if err.error_code != _ALREADY_THERE:
                raise

    def download(self, artifact_uri: str, into: Path) -> Path:
        """Download an artifact folder and return where it is. InputError or DependencyError where it is gone."""
        from mlflow.artifacts import download_artifacts

        try:
            return Path(download_artifacts(artifact_uri=artifact_uri, dst_path=str(into), tracking_uri=self.uri))
        except OSError as err:
            raise InputError(f"{artifact_uri} cannot be read: {err}.") from err


def connect(uri: str) -> Connection:
    """Connect to an MLflow server or to its database. Raises DependencyError at once where it does not answer."""
    telemetry.disable()
    for name, value in _LIMITS.items():
        os.environ.setdefault(name, value)
    _probe(uri)
    with _quietly():
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            return Connection(uri, MlflowClient(tracking_uri=uri, registry_uri=uri))
        except MlflowException as err:
            raise _our_error(err, uri) from err


def _probe(uri: str) -> None:
    """Ask once and soon: MLflow itself would ask for minutes."""
    if uri.startswith(("http://", "https://")):
        _probe_server(uri)
    else:
        _probe_database(uri)


def _probe_server(uri: str) -> None:
    remedy = "Start it (mlflow server --host 127.0.0.1 --port 5000), or correct FRAUD_MLFLOW_TRACKING_URI."
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_TIMEOUT_S):  # noqa: S310 - http, by the caller
            return
    except urllib.error.HTTPError as err:
        if err.code == 403:
            raise DependencyError(
                f"The MLflow server at {_shown(uri)} refuses this host name.",
                remedy="Start it with --allowed-hosts naming the host in FRAUD_MLFLOW_TRACKING_URI.",
            ) from err
        raise DependencyError(f"The MLflow server at {_shown(uri)} answers {err.code}.", remedy=remedy) from err
    except (OSError, ValueError) as err:
        raise DependencyError(f"The MLflow server at {_shown(uri)} does not answer: {err}.", remedy=remedy) from err


def _probe_database(uri: str) -> None:
    import sqlalchemy as sa
    from sqlalchemy.engine import make_url

    remedy = "Correct FRAUD_MLFLOW_TRACKING_URI, or start that database."
    try:
        url = make_url(uri)
        if url.get_backend_name() == "sqlite" and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            remedy = (
                "Check the file and its folder's permissions; a damaged file is moved away or restored from a backup."
            )
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            sa.inspect(connection).get_table_names()
    except (sa.exc.SQLAlchemyError, OSError, ImportError) as err:
        reason = str(getattr(err, "orig", None) or err).strip().splitlines()[0]
        raise DependencyError(f"MLflow's database {_shown(uri)} does not answer: {reason}.", remedy=remedy) from err


def _our_error(err: Any, uri: str) -> FraudError:
    message = str(err).strip().splitlines()[0]
    if err.error_code in _NOT_THERE:
        return NotFound(f"MLflow at {_shown(uri)}: {message}.")
    if err.error_code in _OURS_TO_CORRECT:
        return InputError(f"MLflow at {_shown(uri)} refuses: {message}.")
    return DependencyError(
        f"MLflow at {_shown(uri)} failed: {message}.",
        remedy="See whether it runs and its disk has room, then try again.",
    )


def _shown(uri: str) -> str:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(uri).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return uri


@contextmanager
def _quietly() -> Iterator[None]:
    """MLflow 3.17 uses what SQLAlchemy 2.1 deprecates, and says so at every import."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield
