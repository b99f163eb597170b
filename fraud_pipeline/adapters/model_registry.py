"""Model bundles as versions of one registered MLflow model.

A version is a run's artifact folder with an `MLmodel` file and the bundle as it is, so that
`mlflow.pyfunc.load_model("models:/fraud-detector@champion")` works wherever this package is installed. What people and
gates must know of a version stands in its tags. Files are logged and the version is created by the client's own calls:
0.1 s, where `log_model` takes 3 to 12 to find out requirements that a bundle does not have.

Knows nothing of who may be champion: `promotions.py` decides, and moves the alias.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fraud_pipeline.adapters.mlflow_connection import Connection, connect
from fraud_pipeline.adapters.registered_version import RegisteredVersion, Verdict
from fraud_pipeline.domain.bundle_files import read_directory
from fraud_pipeline.domain.promotion import GateEvidence
from fraud_pipeline.errors import BundleError, DependencyError, FraudError, InputError, NotFound

MODEL_NAME: Final = "fraud-detector"
EXPERIMENT: Final = "fraud-detection"
CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
LOADER: Final = "fraud_pipeline.adapters.mlflow_model"
_FOLDER: Final = "model"
_BUNDLE: Final = "bundle"
_LONGEST_DESCRIPTION: Final = 5_000
"""MLflow's limit. A model card is longer; what it says first is what matters most, and the whole one is in the bundle."""
_FILES_REMEDY: Final = "Restore MLflow's artifacts from a backup, or go back to another version: fraud models rollback."


class ModelRegistry:
    """Use `ModelRegistry.open`. Threads may share one."""

    def __init__(self, connection: Connection, *, cache_dir: Path, experiment_id: str) -> None:
        self._connection = connection
        self._cache_dir = cache_dir
        self.experiment_id = experiment_id

    @classmethod
    def open(
        cls, tracking_uri: str, *, artifact_root: Path, cache_dir: Path, experiment: str = EXPERIMENT
    ) -> ModelRegistry:
        """Connect, making the database and the experiment where they are missing.

        Where MLflow's store is a database, the experiment's artifacts lie under `artifact_root`; a server has its own
        place. Fetched bundles lie under `cache_dir`. The first use of a new SQLite file takes 2 to 5 s (MLflow's 70
        migrations). Raises DependencyError where nothing answers at the address.
        """
        connection = connect(tracking_uri)
        location = None if connection.is_server else artifact_root.absolute().as_uri()
        with connection.translated():
            found = connection.client.get_experiment_by_name(experiment)
            experiment_id = found.experiment_id if found else connection.create_experiment(experiment, location)
        return cls(connection, cache_dir=cache_dir, experiment_id=experiment_id)

    @property
    def address(self) -> str:
        """Where MLflow's store is, without a password."""
        return self._connection.address

    def register(
        self, bundle_dir: Path, *, run_id: str | None = None, tags: Mapping[str, str] | None = None
    ) -> RegisteredVersion:
        """Make a bundle directory a version. The same content again is the same version.

        Without `run_id` a run of its own holds the files. Raises BundleError for a damaged bundle: it is not registered.
        """
        files, fingerprint = read_directory(bundle_dir)
        if (same := self.find(fingerprint)) is not None:
            return same
        all_tags = {**_tags_of(files), **(tags or {}), "fingerprint": fingerprint, "verdict": "unjudged"}
        client = self._connection.client
        with self._connection.translated(), _artifact_folder(bundle_dir) as folder:
            self._make_sure_of_the_model()
            run = (
                client.get_run(run_id)
                if run_id is not None
                else client.create_run(self.experiment_id, run_name=_BUNDLE)
            )
            client.log_artifacts(run.info.run_id, str(folder), _FOLDER)
            created = client.create_model_version(
                MODEL_NAME,
                source=f"{run.info.artifact_uri}/{_FOLDER}",
                run_id=run.info.run_id,
                tags=all_tags,
                description=_description(files),
            )
            if run_id is None:
                client.set_terminated(run.info.run_id)
        return RegisteredVersion.of(created, aliases=())

    def versions(self) -> list[RegisteredVersion]:
        """Every version, the newest first; empty before the first one."""
        return self._search(f"name='{MODEL_NAME}'")

    def version(self, number: int) -> RegisteredVersion:
        """One version. NotFound where there is none of that number."""
        try:
            with self._connection.translated():
                found = self._connection.client.get_model_version(MODEL_NAME, str(number))
        except NotFound as err:
            message = f"There is no version {number} of {MODEL_NAME}."
            raise NotFound(message, remedy="`fraud models list` shows them.") from err
        return RegisteredVersion.of(found, aliases=tuple(a for a, n in sorted(self._aliases().items()) if n == number))

    def find(self, fingerprint: str) -> RegisteredVersion | None:
        """The version with this content."""
        return next(iter(self._search(f"name='{MODEL_NAME}' and tag.fingerprint='{fingerprint}'")), None)

    def champion(self) -> RegisteredVersion | None:
        """The version under the alias, which is a projection: the ledger's newest promotion is the truth."""
        return self._aliased(CHAMPION)

    def challenger(self) -> RegisteredVersion | None:
        """The version that scores in shadow; the ledger's newest row is the truth here too."""
        return self._aliased(CHALLENGER)

    def aliased(self, alias: str) -> int | None:
        """The version's number under an alias."""
        return self._aliases().get(alias)

    def set_tag(self, version: int, name: str, value: str) -> None:
        with self._connection.translated():
            self._connection.client.set_model_version_tag(MODEL_NAME, str(version), name, value)

    def record_gates(self, version: int, evidence: GateEvidence) -> Verdict:
        """Write the gate results to the version, whether it passed or not; returns the verdict."""
        verdict: Verdict = "failed" if evidence.failures else "passed"
        reason = "; ".join(f"{r.name}: {r.explanation}" for r in evidence.failures)
        self.set_tag(version, "gates", evidence.to_json())
        self.set_tag(version, "verdict", verdict)
        self.set_tag(version, "reason", reason[:_LONGEST_DESCRIPTION])
        return verdict

    def set_alias(self, alias: str, version: int) -> None:
        with self._connection.translated():
            self._connection.client.set_registered_model_alias(MODEL_NAME, alias, str(version))

    def delete_alias(self, alias: str) -> None:
        """Nothing happens where it is not set."""
        with self._connection.translated():
            self._connection.client.delete_registered_model_alias(MODEL_NAME, alias)

    def fetch(self, version: int) -> Path:
        """The version's bundle as a local directory, downloaded once and verified at each call.

        Raises NotFound for an unknown version, BundleError where its files are gone or are not what was registered.
        """
        wanted = self.version(version)
        target = self._cache_dir / f"{version}-{wanted.fingerprint[:16]}"
        if _fingerprint(target) == wanted.fingerprint:
            return target
        self._cache_dir.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=self._cache_dir))
        try:
            downloaded = self._download(wanted, staging)
            if _fingerprint(downloaded) != wanted.fingerprint:
                raise BundleError(
                    f"The files of version {version} at {wanted.source} are not those that were registered.",
                    remedy=_FILES_REMEDY,
                )
            _put_in_place(downloaded, target, wanted.fingerprint)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return target

    def _download(self, wanted: RegisteredVersion, staging: Path) -> Path:
        try:
            with self._connection.translated():
                return self._connection.download(f"{wanted.source}/{_BUNDLE}", staging)
        except (DependencyError, InputError) as err:
            self._connection.check()  # a registry that is away is another matter than files that are gone
            raise BundleError(
                f"The files of version {wanted.version} at {wanted.source} are gone.", remedy=_FILES_REMEDY
            ) from err

    def _make_sure_of_the_model(self) -> None:
        if not self._connection.client.search_registered_models(f"name='{MODEL_NAME}'"):
            self._connection.create_registered_model(MODEL_NAME, "Fraud detector bundles; the alias champion serves.")

    def _aliased(self, alias: str) -> RegisteredVersion | None:
        number = self._aliases().get(alias)
        return None if number is None else self.version(number)

    def _aliases(self) -> dict[str, int]:
        with self._connection.translated():
            found = self._connection.client.search_registered_models(f"name='{MODEL_NAME}'")
        return {alias: int(number) for model in found for alias, number in model.aliases.items()}

    def _search(self, condition: str) -> list[RegisteredVersion]:
        by_version: dict[int, tuple[str, ...]] = {}
        for alias, number in sorted(self._aliases().items()):
            by_version[number] = (*by_version.get(number, ()), alias)
        found: list[Any] = []
        token: str | None = None
        with self._connection.translated():
            while True:
                page = self._connection.client.search_model_versions(condition, max_results=200, page_token=token)
                found += page
                token = page.token
                if not token:
                    break
        versions = [RegisteredVersion.of(v, aliases=by_version.get(int(v.version), ())) for v in found]
        return sorted(versions, key=lambda v: -v.version)


@contextmanager
def _artifact_folder(bundle_dir: Path) -> Iterator[Path]:
    """A folder as MLflow's pyfunc expects it: `MLmodel` beside the bundle.

    The file is written here, in MLflow's documented format (JSON is YAML): `mlflow.pyfunc` would write the same, after an
    import of seconds.
    """
    flavor = {"loader_module": LOADER, "data": _BUNDLE, "python_version": platform.python_version()}
    with tempfile.TemporaryDirectory(prefix="fraud-model-") as name:
        folder = Path(name)
        shutil.copytree(bundle_dir, folder / _BUNDLE)
        (folder / "MLmodel").write_text(json.dumps({"flavors": {"python_function": flavor}}, indent=1))
        yield folder


def _tags_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """What a list of versions shows, taken from the bundle's facts so that nothing needs downloading for it."""
    try:
        facts = json.loads(files["bundle.json"])
        lineage, evaluation = facts["lineage"], facts["metrics"].get("evaluation", {})
        window = lineage["periods"].get("training", ())
        return {
            "kind": str(facts["kind"]),
            "feature_schema": str(facts["feature_schema"]),
            "as_of": str(lineage["as_of"]),
            "data_fingerprint": str(lineage["data_fingerprint"]),
            "training_window": "..".join(window),
            "metrics": json.dumps(evaluation.get("metrics", evaluation)),
        }
    except (KeyError, ValueError, TypeError, AttributeError) as err:
        raise BundleError(f"bundle.json cannot be read: {err!r}.", remedy="Make the bundle anew.") from err


def _description(files: Mapping[str, bytes]) -> str:
    return files.get("model_card.md", b"").decode()[:_LONGEST_DESCRIPTION]


def _fingerprint(bundle_dir: Path) -> str | None:
    """The fingerprint of a sound bundle; None where there is none."""
    try:
        return read_directory(bundle_dir)[1]
    except FraudError:
        return None


def _put_in_place(downloaded: Path, target: Path, fingerprint: str) -> None:
    """Rename; where another process was quicker, its directory is as good."""
    if target.exists():
        shutil.rmtree(target, ignore_errors=True)
    try:
        os.replace(downloaded, target)
    except OSError:
        if _fingerprint(target) != fingerprint:
            raise
