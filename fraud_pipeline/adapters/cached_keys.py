"""API keys in memory for the request path: no request waits for the database.

A thread reads the table every second, so a revoked key stops working within two. While the database is away the keys that
were read last go on being valid: the service must decide payments then, too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Final, Self

from fraud_pipeline.adapters.api_keys import ApiKey, verify_among
from fraud_pipeline.errors import DependencyError

REFRESH_S: Final = 1.0
"""Half of the two seconds that are promised; the rest is for the reading itself. One small SELECT."""
JOIN_S: Final = 10.0
"""A reading that hangs on a dead connection is not waited for any longer: the thread is a daemon."""

logger = logging.getLogger(__name__)


class CachedKeys:
    """The keys that `load` (such as `KeyStore.list`) returned last. `start` it, and close it; any thread may ask."""

    def __init__(self, load: Callable[[], Iterable[ApiKey]], *, interval_s: float = REFRESH_S) -> None:
        self._load = load
        self._interval_s = interval_s
        self._known: Mapping[str, ApiKey] | None = None
        self._away = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Read the keys, and go on doing so. Where the database is away it starts too, and asks again."""
        self.refresh()
        self._thread = threading.Thread(target=self._refresh_for_ever, name="api-keys", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def refresh(self) -> None:
        """Read the keys now. A failure is logged once for as long as it lasts, and changes nothing else."""
        try:
            self._known = {key.key_id: key for key in self._load()}
        except Exception as err:  # noqa: BLE001 whatever it is: a refresher that dies would keep revoked keys alive
            if not self._away:
                logger.warning("API keys cannot be read; those read before stay valid: %s", err)
            self._away = True
            return
        if self._away:
            logger.info("API keys can be read again.")
        self._away = False

    def verify(self, presented: str) -> ApiKey | None:
        """The active key that was presented. DependencyError where the keys could not be read even once."""
        return verify_among(self._read(), presented)

    def any_active(self) -> bool:
        """Whether any key is valid."""
        return any(key.active for key in self._read().values())

    def any_made(self) -> bool:
        """Whether there ever was a key: revoking the last one locks the service, it does not open it."""
        return bool(self._read())

    def _read(self) -> Mapping[str, ApiKey]:
        if self._known is None:
            raise DependencyError(
                "The API keys cannot be read from the ledger.", remedy="Start the ledger's database; it is asked again."
            )
        return self._known

    def _refresh_for_ever(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.refresh()
