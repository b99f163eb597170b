"""A bundle's directory as files: written whole or not at all, named by its content, verified when read.

Knows nothing of what the files mean. `manifest.json` holds the SHA-256 of each file; the fingerprint is the hash over those.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fraud_pipeline.errors import BundleError

MANIFEST: Final = "manifest.json"
MANIFEST_FORMAT: Final = 1
_REMEDY: Final = "Fetch the version again from the registry, or restore the directory from a backup."


def write_directory(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write `files` and their manifest to `root/<first 16 digits of the fingerprint>` and return that directory.

    The same content again changes nothing. A directory of that name that does not hold it (damaged since) is replaced.
    """
    manifest = _manifest(files)
    target = root / str(manifest["fingerprint"])[:16]
    root.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=root))
    try:
        staging.chmod(0o755)  # mkdtemp makes it private; a bundle is read by the service's own user
        for name, content in files.items():
            _write(staging / name, content)
        _write(staging / MANIFEST, json.dumps(manifest, indent=2).encode())
        _sync_directory(staging)
        if target.exists():
            if _holds(target, manifest):
                return target
            shutil.rmtree(target)
        os.replace(staging, target)
        _sync_directory(root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def read_directory(path: Path) -> tuple[dict[str, bytes], str]:
    """All files by name, and the fingerprint; BundleError names the file that is missing, short or altered."""
    manifest = _read_manifest(path)
    files = {}
    for name, expected in manifest["files"].items():
        try:
            content = (path / name).read_bytes()
        except FileNotFoundError as err:
            raise BundleError(f"Bundle {path}: {name} is missing.", remedy=_REMEDY) from err
        if len(content) != expected["bytes"]:
            message = f"Bundle {path}: {name} has {len(content)} bytes instead of {expected['bytes']}."
            raise BundleError(message, remedy=_REMEDY)
        if hashlib.sha256(content).hexdigest() != expected["sha256"]:
            raise BundleError(f"Bundle {path}: {name} was altered: its SHA-256 is another.", remedy=_REMEDY)
        files[name] = content
    return files, str(manifest["fingerprint"])


def _manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    entries = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in sorted(files.items())
    }
    return {"format": MANIFEST_FORMAT, "fingerprint": _fingerprint(entries), "files": entries}


def _fingerprint(entries: Mapping[str, Mapping[str, Any]]) -> str:
    lines = "".join(f"{entry['sha256']}  {name}\n" for name, entry in sorted(entries.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())
        entries = {
            str(name): {"sha256": str(e["sha256"]), "bytes": int(e["bytes"])} for name, e in manifest["files"].items()
        }
        sound = manifest["format"] == MANIFEST_FORMAT and manifest["fingerprint"] == _fingerprint(entries)
    except FileNotFoundError as err:
        raise BundleError(f"Bundle {path}: {MANIFEST} is missing, so this is no bundle.", remedy=_REMEDY) from err
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as err:
        raise BundleError(f"Bundle {path}: {MANIFEST} cannot be read: {err}.", remedy=_REMEDY) from err
    if not sound:
        raise BundleError(f"Bundle {path}: {MANIFEST} was altered, or has a format not known here.", remedy=_REMEDY)
    if bad := [name for name in entries if Path(name).name != name]:
        raise BundleError(f"Bundle {path}: {MANIFEST} names {bad[0]}, which lies outside.", remedy=_REMEDY)
    return {**manifest, "files": entries}


def _holds(path: Path, manifest: Mapping[str, Any]) -> bool:
    try:
        _, fingerprint = read_directory(path)
    except BundleError:
        return False
    return fingerprint == manifest["fingerprint"]


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
