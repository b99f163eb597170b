"""What a backup's folder holds: its manifest with a checksum of every file, written last. Without it, it is none.

Knows nothing of what the files mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fraud_pipeline.errors import IntegrityError, NotFound

NAME: Final = "manifest.json"
FORMAT: Final = 1
CHUNK: Final = 1 << 20
"""Read at once while a file is hashed."""


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """`facts` say of what and when; `files` are (bytes, SHA-256) by path inside the folder."""

    facts: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]

    @property
    def identity(self) -> str:
        """A name of this very backup."""
        return hashlib.sha256(_text(self).encode()).hexdigest()[:16]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(size for size, _ in self.files.values())


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> BackupManifest:
    """Hash what is there and write the manifest; the folder is a backup from then on."""
    files = {
        path.relative_to(folder).as_posix(): (path.stat().st_size, sha256_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = BackupManifest(dict(facts), files)
    (folder / NAME).write_text(_text(manifest), encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> BackupManifest:
    """The manifest of a folder. NotFound where there is none, IntegrityError for one that cannot be read."""
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = BackupManifest(content["facts"], {name: (size, sha) for name, (size, sha) in content["files"].items()})
        known = content["format"] == FORMAT
    except FileNotFoundError as err:
        raise NotFound(
            f"{folder} is no backup: it has no {NAME}.", remedy="One that was cut off has none, either."
        ) from err
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise IntegrityError(f"{path} cannot be read: {err!r}.", remedy="Take another backup.") from err
    if not known:
        raise IntegrityError(
            f"{path} has format {content['format']}, this code reads {FORMAT}.",
            remedy="Restore it with the version that made it.",
        )
    return found


def verify(folder: Path, manifest: BackupManifest) -> None:
    """Every file is there and is what was written. IntegrityError names the first that is not."""
    for name, (size, sha) in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise IntegrityError(f"The backup lacks {name}.", remedy="Use another backup.")
        if path.stat().st_size != size or sha256_of(path) != sha:
            raise IntegrityError(f"{name} in the backup is not what was written.", remedy="Use another backup.")


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _text(manifest: BackupManifest) -> str:
    return json.dumps(
        {"format": FORMAT, "facts": manifest.facts, "files": manifest.files}, indent=1, sort_keys=True, default=str
    )
