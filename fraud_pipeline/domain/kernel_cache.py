"""Where numba keeps compiled kernels: a folder named by a hash of all kernel sources.

numba's own cache looks only at the file that holds the entry point: with kernels in one file and loops in another, an
edited kernel and a cached loop would disagree silently. Import this module before any `numba.njit(cache=True)`.
`NUMBA_CACHE_DIR` moves the folder (container images fill it at build time).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

import numba
from numba.core import config as numba_config

_HERE: Final = Path(__file__).parent


def sources_hash() -> str:
    """The first 12 hex digits of SHA-256 over every module here that holds compiled code, and the numba version."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(_HERE.glob("*.py")):
        source = path.read_bytes()
        if b"njit" in source or path.name.startswith("feature_"):
            digest.update(path.name.encode() + b"\0" + source)
    return digest.hexdigest()[:12]


def _base() -> Path:
    configured = str(numba_config.CACHE_DIR)
    if configured:
        return Path(configured)
    beside = _HERE / "__pycache__"
    try:
        beside.mkdir(exist_ok=True)
        if os.access(beside, os.W_OK):
            return beside
    except OSError:
        pass  # a read-only installation: the user's temporary folder serves
    return Path(tempfile.gettempdir()) / f"fraud-pipeline-{os.getuid()}"


CACHE_DIR: Final = _base() / f"kernels-{sources_hash()}"
numba_config.CACHE_DIR = str(CACHE_DIR)
