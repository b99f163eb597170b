"""Snapshots of feature state, by name, wherever fsspec reaches: a folder, S3, ...

A checkpoint is immutable and appears whole or not at all; two owners who write the same name write the same bytes. What
the bytes mean is `feature_state`'s.
"""

from __future__ import annotations

import hashlib
from uuid import uuid4

import fsspec

from fraud_pipeline.errors import DependencyError, StateError

DIGEST_BYTES = 16


class CheckpointStore:
    """Named byte strings under one address (FRAUD_CHECKPOINT_URL). Nothing is opened until it is used."""

    def __init__(self, url: str) -> None:
        self.url = url

    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted; none where it is not there."""
        files, root = self._open()
        try:
            found = files.ls(f"{root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        except OSError as err:
            raise self._unavailable(err) from err
        return sorted(name for path in found if not (name := path.rsplit("/", 1)[-1]).startswith("."))

    def has(self, name: str) -> bool:
        files, root = self._open()
        try:
            return bool(files.exists(f"{root}/{name}"))
        except OSError as err:
            raise self._unavailable(err) from err

    def write(self, name: str, content: bytes) -> None:
        """Keep `content` under `name` (folders with /). A name that is there already stays as it is."""
        if self.has(name):
            return
        files, root = self._open()
        folder, _, last = f"{root}/{name}".rpartition("/")
        temporary = f"{folder}/.{last}.{uuid4().hex}"
        try:
            files.makedirs(folder, exist_ok=True)
            files.pipe_file(temporary, _digest(content) + content)
            files.mv(temporary, f"{folder}/{last}")
        except OSError as err:
            raise self._unavailable(err) from err

    def read(self, name: str) -> bytes:
        """StateError where it is missing or not what was written."""
        files, root = self._open()
        try:
            stored = files.cat_file(f"{root}/{name}")
        except FileNotFoundError as err:
            raise StateError(f"There is no checkpoint {name} in {self.url}.", remedy="Run `fraud run` again.") from err
        except OSError as err:
            raise self._unavailable(err) from err
        content = stored[DIGEST_BYTES:]
        if stored[:DIGEST_BYTES] != _digest(content):
            raise StateError(
                f"Checkpoint {name} in {self.url} is damaged.", remedy="Remove it and run `fraud run` again."
            )
        return bytes(content)

    def remove(self, name: str) -> None:
        """Forget a name; nothing happens where it is not there."""
        files, root = self._open()
        try:
            files.rm_file(f"{root}/{name}")
        except FileNotFoundError:
            return
        except OSError as err:
            raise self._unavailable(err) from err

    def _open(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            files, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as err:
            raise DependencyError(
                f"Checkpoints cannot be kept at {self.url}: {err}.",
                remedy="Correct FRAUD_CHECKPOINT_URL, or install what its scheme needs.",
            ) from err
        return files, root.rstrip("/")

    def _unavailable(self, err: OSError) -> DependencyError:
        return DependencyError(
            f"Checkpoints at {self.url} cannot be used: {err.strerror or err}.",
            remedy="Check the disk, the permissions and FRAUD_CHECKPOINT_URL.",
        )


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()
