"""What `fraud doctor` looks at: each check returns findings and repairs nothing."""

from __future__ import annotations

import difflib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from fraud_pipeline.errors import FraudError
from fraud_pipeline.settings import PREFIX, Settings, is_known, load_settings, variable, without_password

Status = Literal["ok", "note", "broken"]
OK: Status = "ok"
NOTE: Status = "note"
BROKEN: Status = "broken"

EXTRAS = {
    "pipeline": (
        "dagster",
        "dagster-webserver",
        "dagster-mlflow",
        "mlflow",
        "xgboost",
        "scikit-learn",
        "great-expectations",
        "evidently",
    ),
    "serving": ("bentoml",),
    "streaming": ("confluent-kafka",),
    "postgres": ("psycopg",),
}
CORE = ("numpy", "numba", "onnxruntime", "pyarrow", "sqlalchemy", "pydantic")
MIN_FREE_GIB = 2.0
"""The demo's home takes about 0.5 GiB; MLflow and Dagster write while they clean up."""
CONNECT_TIMEOUT_S = 3.0
"""A service on the same network answers in milliseconds; longer means that it does not."""
NOT_SETTINGS = frozenset({"FRAUD_SHARED_DATA"})
"""Read by the tests alone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; a note is worth knowing and stops nothing."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def diagnose() -> list[Finding]:
    """Run every check; one that depends on a broken setting is left out."""
    findings = [*_python(), *_packages(), *_unknown_variables()]
    try:
        settings = load_settings()
    except FraudError as err:
        return [*findings, Finding("settings", BROKEN, err.message, err.remedy)]
    checks: tuple[Callable[[Settings], Iterable[Finding]], ...] = (
        _home,
        _world,
        _ledger,
        _mlflow,
        _checkpoints,
        _kernels,
    )
    for check in checks:
        findings.extend(check(settings))
    return findings


def _python() -> Iterator[Finding]:
    fits = (3, 11) <= sys.version_info < (3, 14)
    remedy = "" if fits else "Use Python 3.11, 3.12 or 3.13."
    yield Finding(
        "python",
        OK if fits else BROKEN,
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        remedy,
    )


def _packages() -> Iterator[Finding]:
    yield _installed("core", CORE, missing=BROKEN)
    for extra, packages in EXTRAS.items():
        yield _installed(extra, packages, missing=NOTE)


def _installed(name: str, packages: tuple[str, ...], *, missing: Status) -> Finding:
    found, absent = [], []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            absent.append(package)
    target = "fraud-pipeline" if name == "core" else f"fraud-pipeline[{name}]"
    if absent:
        return Finding(f"packages: {name}", missing, f"not installed: {', '.join(absent)}", f"pip install '{target}'")
    return Finding(f"packages: {name}", OK, ", ".join(found))


def _unknown_variables() -> Iterator[Finding]:
    """Only a note: an orchestrator may add variables of its own with our prefix (a Kubernetes service named fraud does)."""
    known = {variable(name) for name in Settings.model_fields} | NOT_SETTINGS
    for name in sorted(key for key in os.environ if key.startswith(PREFIX) and key not in known and not is_known(key)):
        close = difflib.get_close_matches(name, known, n=1)
        yield Finding(
            "settings",
            NOTE,
            f"{name} is set but is no setting",
            f"Did you mean {close[0]}?" if close else "`fraud settings` lists them.",
        )


def _home(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            "home", BROKEN, f"{home} cannot be written", f"Make {existing} writable, or point {PREFIX}HOME elsewhere."
        )
        return
    free = shutil.disk_usage(existing).free / 2**30
    state = "exists" if home.exists() else "will be made"
    low = free < MIN_FREE_GIB
    remedy = f"Free some: at least {MIN_FREE_GIB:g} GiB." if low else ""
    yield Finding("home", BROKEN if low else OK, f"{home} ({state}), {free:,.1f} GiB free", remedy)


def _world(settings: Settings) -> Iterator[Finding]:
    from fraud_pipeline.adapters.source_store import SourceStore

    source = SourceStore(settings.home)
    if not source.exists():
        yield Finding(
            "world",
            NOTE,
            "no payments yet",
            "`fraud run` (simulates), `fraud simulate`, or `fraud import FILE --mapping NAME`",
        )
        return
    try:
        manifest = source.manifest()
    except FraudError as err:
        yield Finding("world", BROKEN, err.message, err.remedy)
        return
    detail = f"{manifest.name}: {manifest.rows:,} payments, {manifest.start} to {manifest.end}, {manifest.currency}"
    if manifest.currency != settings.currency:
        yield Finding(
            "world", BROKEN, detail, f"Set {PREFIX}CURRENCY={manifest.currency}, or use another {PREFIX}HOME."
        )
    else:
        yield Finding("world", OK, detail)


def _ledger(settings: Settings) -> Iterator[Finding]:
    yield _database("ledger", settings.ledger_url, variable("ledger_url"))


def _mlflow(settings: Settings) -> Iterator[Finding]:
    address = settings.mlflow_tracking_uri
    if not address.startswith(("http://", "https://")):
        yield _database("mlflow", address, variable("mlflow_tracking_uri"))
        return
    from urllib.error import URLError
    from urllib.request import urlopen

    shown = without_password(address)
    try:
        with urlopen(f"{address.rstrip('/')}/health", timeout=CONNECT_TIMEOUT_S) as answer:  # noqa: S310 http(s) only, checked above
            yield Finding("mlflow", OK, f"{shown} answers {answer.status}")
    except (URLError, OSError) as err:
        remedy = f"Start it (`mlflow server`), check {variable('mlflow_tracking_uri')}, and that the server allows this Host name."
        yield Finding("mlflow", BROKEN, f"{shown} does not answer: {err}", remedy)


def _database(name: str, address: str, setting: str) -> Finding:
    """Connect without making anything: an SQLite file that is not there yet is well."""
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    shown = without_password(address)
    try:
        url = make_url(address)
        file = url.database if url.get_backend_name() == "sqlite" else None
        if file and not Path(file).exists():
            return Finding(name, OK, f"{shown} (will be made)")
        arguments = {} if url.get_backend_name() == "sqlite" else {"connect_timeout": int(CONNECT_TIMEOUT_S)}
        engine = create_engine(url, connect_args=arguments)
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
        engine.dispose()
    except ModuleNotFoundError as err:
        return Finding(
            name, BROKEN, f"{shown}: the driver {err.name} is not installed", "pip install 'fraud-pipeline[postgres]'"
        )
    except ArgumentError as err:
        return Finding(name, BROKEN, f"{shown}: {err}", f"Correct {setting}.")
    except SQLAlchemyError as err:
        reason = str(err.__cause__ or err).splitlines()[0]
        return Finding(
            name,
            BROKEN,
            f"{shown}: {reason}",
            f"Start the database, or correct {setting}; unset it for SQLite under the home.",
        )
    return Finding(name, OK, f"{shown} answers")


def _checkpoints(settings: Settings) -> Iterator[Finding]:
    import fsspec

    address = settings.checkpoint_url
    shown = without_password(address)
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
        there = filesystem.exists(path)
    except (ImportError, OSError, ValueError) as err:
        yield Finding(
            "checkpoints",
            BROKEN,
            f"{shown}: {err}",
            f"Correct {variable('checkpoint_url')}, or install what its scheme needs.",
        )
        return
    yield Finding("checkpoints", OK, shown if there else f"{shown} (will be made)")


def _kernels(_settings: Settings) -> Iterator[Finding]:
    from fraud_pipeline.domain import kernel_cache

    compiled = any(kernel_cache.CACHE_DIR.glob("**/*.nbi"))
    yield Finding(
        "kernels",
        OK if compiled else NOTE,
        str(kernel_cache.CACHE_DIR),
        "" if compiled else "`fraud warm` compiles them (about a minute).",
    )
