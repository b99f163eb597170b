"""Our own loggers under BentoML, which sets up no others than its own: one line per event on stderr, ids and no payloads."""

from __future__ import annotations

import logging
import sys
from typing import Final

OURS: Final = ("fraud_pipeline", "serving")
LINE: Final = "%(asctime)s [%(levelname)s] [%(name)s] %(message)s"


def log_to_stderr() -> None:
    """Show what our modules log, from INFO on; again changes nothing."""
    for name in OURS:
        logger = logging.getLogger(name)
        if not logger.handlers:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(logging.Formatter(LINE))
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
