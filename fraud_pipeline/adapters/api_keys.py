"""API keys in the ledger's database: made, listed, revoked, verified. Knows nothing of HTTP.

A key is `fp_<id>_<secret>`. The secret is 256 bits from the operating system's generator, and only its SHA-256 is kept. A
slow hash (bcrypt, Argon2) makes guessing a *chosen* password dear; among 2^256 random secrets there is nothing to guess,
at any price per guess, so it would protect nothing and cost each request milliseconds.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, cast, get_args

import sqlalchemy as sa
from sqlalchemy.engine import RowMapping

from fraud_pipeline.adapters.ledger_database import LedgerDatabase
from fraud_pipeline.adapters.ledger_schema import api_keys
from fraud_pipeline.errors import InputError, NotFound

Scope = Literal["score", "label", "read", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
ADMIN: Final[Scope] = "admin"
"""Includes every other scope."""

PREFIX: Final = "fp_"
"""So that a secret scanner, and a person, knows what it is that leaked."""
ID_BYTES: Final = 6
SECRET_BYTES: Final = 32
_ID_AT: Final = len(PREFIX)
_SECRET_AT: Final = _ID_AT + 2 * ID_BYTES + 1
_LENGTH: Final = _SECRET_AT + 43  # 32 bytes are 43 characters of URL-safe base64
_NOBODY: Final = "0" * 64
_MAX_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key. `granted` are its scopes as they were given; `digest` is no secret, but nobody's business."""

    key_id: str
    name: str
    granted: tuple[Scope, ...]
    created_at: datetime
    revoked_at: datetime | None
    digest: str = field(repr=False)

    @property
    def active(self) -> bool:
        return self.revoked_at is None

    def allows(self, scope: str) -> bool:
        """Whether the key's scopes include this one; what is no scope is allowed to nobody."""
        return scope in self.granted or (ADMIN in self.granted and scope in SCOPES)


def verify_among(keys: Mapping[str, ApiKey], presented: str) -> ApiKey | None:
    """The active key among `keys` (by id) that was presented; takes as long for a wrong secret as for a right one."""
    if len(presented) != _LENGTH or not presented.startswith(PREFIX) or presented[_SECRET_AT - 1] != "_":
        return None
    key = keys.get(presented[_ID_AT : _SECRET_AT - 1])
    digest = hash_secret(presented[_SECRET_AT:])
    right = hmac.compare_digest(digest, _NOBODY if key is None else key.digest)
    return key if right and key is not None and key.revoked_at is None else None


def hash_secret(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class KeyStore:
    """The table of keys in an open ledger's database (`Ledger.database`). Threads may share one."""

    def __init__(self, database: LedgerDatabase) -> None:
        self._database = database

    def create(self, name: str, scopes: Collection[str], *, now: datetime) -> tuple[ApiKey, str]:
        """Make a key; returns what is kept, and the plain key, which nobody can ask for again.

        A name may be given twice, so that a key can be replaced while the old one still works. Raises InputError.
        """
        if not (name.strip() and name.isprintable() and len(name) <= _MAX_NAME):
            raise InputError(
                f"{name!r} is no name for a key.",
                remedy=f"Give 1 to {_MAX_NAME} printable characters, say who uses it.",
            )
        if not scopes or (unknown := sorted(set(scopes) - set(SCOPES))):
            wrong = (
                f"There is no scope {', '.join(map(repr, unknown))}."
                if scopes
                else "A key without a scope opens nothing."
            )
            raise InputError(wrong, remedy=f"Scopes are {', '.join(SCOPES)}.")
        secret = secrets.token_urlsafe(SECRET_BYTES)
        key = ApiKey(
            key_id=secrets.token_hex(ID_BYTES),
            name=name,
            granted=tuple(scope for scope in SCOPES if scope in scopes),
            created_at=now,
            revoked_at=None,
            digest=hash_secret(secret),
        )
        row = {
            "key_id": key.key_id, "name": name, "hash": key.digest, "scopes": list(key.granted), "created_at": now,
        }  # fmt: skip
        with self._database.writing() as connection:
            connection.execute(sa.insert(api_keys).values(**row))
        return key, f"{PREFIX}{key.key_id}_{secret}"

    def list(self) -> tuple[ApiKey, ...]:
        """Every key that was ever made, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(api_keys).order_by(api_keys.c.created_at, api_keys.c.key_id)).mappings()
            return tuple(_key(row) for row in rows)

    def revoke(self, key_id: str, *, now: datetime) -> ApiKey:
        """Make a key invalid for ever; the time of an earlier revocation stays. Raises NotFound."""
        with self._database.writing() as connection:
            connection.execute(
                sa.update(api_keys)
                .where(api_keys.c.key_id == key_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=now)
            )
            row = connection.execute(sa.select(api_keys).where(api_keys.c.key_id == key_id)).mappings().first()
        if row is None:
            raise NotFound(f"There is no API key {key_id!r}.", remedy="`fraud keys list` shows the ids.")
        return _key(row)

    def verify(self, presented: str) -> ApiKey | None:
        """The active key that was presented, asked of the database; `CachedKeys` is for the request path."""
        key_id = presented[_ID_AT : _SECRET_AT - 1]
        if "\x00" in key_id or not key_id.isascii():  # PostgreSQL refuses them, and no id of ours has them
            return None
        with self._database.reading() as connection:
            row = connection.execute(sa.select(api_keys).where(api_keys.c.key_id == key_id)).mappings().first()
        return verify_among({} if row is None else {key_id: _key(row)}, presented)

    def any_active(self) -> bool:
        """Whether any key is valid."""
        return any(key.active for key in self.list())


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(
        key_id=row["key_id"],
        name=row["name"],
        granted=tuple(cast("Scope", scope) for scope in row["scopes"]),
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        digest=row["hash"],
    )
