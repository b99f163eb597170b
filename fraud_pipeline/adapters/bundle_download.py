"""A version's bundle from an MLflow server, over its REST interface: for processes that only serve and have no MLflow installed.

Loading MLflow takes seconds and 200 MB; a scorer needs one folder of files. The server must pass artifacts through
(`mlflow server --serve-artifacts`, its default).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from fraud_pipeline.domain.bundle_files import read_directory
from fraud_pipeline.errors import BundleError, DependencyError, FraudError, NotFound

MODEL_NAME: Final = "fraud-detector"
PROXIED: Final = "mlflow-artifacts:/"
FOLDER: Final = "bundle"
TIMEOUT_S: Final = 30.0
"""For one file: a bundle's largest has a few MB."""
CHUNK: Final = 1 << 20
REMEDY: Final = "Start it, or correct FRAUD_MLFLOW_TRACKING_URI."


def download_bundle(server: str, version: int, fingerprint: str, *, into: Path) -> Path:
    """The bundle's folder below `into`, downloaded whole and verified.

    Raises:
        NotFound: the registry has no such version.
        BundleError: its files are gone, elsewhere than behind the server, or not what was promoted.
        DependencyError: the server does not answer.
    """
    server = server.rstrip("/")
    query = urllib.parse.urlencode({"name": MODEL_NAME, "version": version})
    source = str(
        _json(f"{server}/api/2.0/mlflow/model-versions/get?{query}", f"version {version}")["model_version"]["source"]
    )
    if not source.startswith(PROXIED):
        raise BundleError(
            f"The files of version {version} are at {source}, which the MLflow server does not pass on.",
            remedy="Start it with --serve-artifacts, or install MLflow here.",
        )
    root = f"{source.removeprefix(PROXIED).strip('/')}/{FOLDER}"
    target = into / f"{version}-{fingerprint[:16]}"
    into.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=into))
    try:
        for path in _files(server, root):
            _save(server, path, staging / path.removeprefix(root).lstrip("/"))
        if read_directory(staging)[1] != fingerprint:
            raise BundleError(
                f"The files of version {version} at {source} are not those that were promoted.",
                remedy="Restore MLflow's artifacts from a backup, or go back to another version: fraud models rollback.",
            )
        _put_in_place(staging, target, fingerprint)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _files(server: str, folder: str) -> Iterator[str]:
    query = urllib.parse.urlencode({"path": folder})
    for entry in _json(f"{server}/api/2.0/mlflow-artifacts/artifacts?{query}", folder).get("files", ()):
        path = f"{folder}/{str(entry['path']).rsplit('/', 1)[-1]}"
        if entry.get("is_dir"):
            yield from _files(server, path)
        else:
            yield path


def _save(server: str, path: str, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with (
        _open(f"{server}/api/2.0/mlflow-artifacts/artifacts/{urllib.parse.quote(path)}", path) as answer,
        to.open("wb") as file,
    ):
        shutil.copyfileobj(answer, file, CHUNK)


def _json(url: str, what: str) -> Any:
    with _open(url, what) as answer:
        return json.loads(answer.read())


def _open(url: str, what: str) -> Any:
    try:
        return urllib.request.urlopen(url, timeout=TIMEOUT_S)  # noqa: S310 the caller's http address
    except urllib.error.HTTPError as err:
        with err:
            if err.code == 404:
                raise NotFound(f"MLflow has no {what}.", remedy="`fraud models list` shows the versions.") from err
            raise DependencyError(f"MLflow answers {err.code} for {what}.", remedy=REMEDY) from err
    except OSError as err:
        address = urllib.parse.urlsplit(url)
        raise DependencyError(
            f"The MLflow server at {address.hostname}:{address.port} does not answer: {err}.", remedy=REMEDY
        ) from err


def _put_in_place(downloaded: Path, target: Path, fingerprint: str) -> None:
    """Rename; where another process was quicker, its folder is as good."""
    shutil.rmtree(target, ignore_errors=True)
    downloaded.chmod(0o755)  # a temporary folder is its maker's alone; the home is shared
    try:
        os.replace(downloaded, target)
    except OSError:
        try:
            if read_directory(target)[1] == fingerprint:
                return
        except FraudError:
            pass
        raise
