"""Whether a request comes from this very machine, and from somebody who meant to send it here.

A loopback address alone does not say so: a proxy beside the service speaks from one for the whole world, and a web page
in a browser on this machine can send requests here (by a name that it makes resolve to loopback, or across origins).
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from starlette.types import Scope

FORWARDED: Final = frozenset((b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"))
_TELLING: Final = FORWARDED | {b"host", b"origin"}


def is_direct_and_local(scope: Scope) -> bool:
    """From loopback, to a loopback name, through no proxy, from no web page of elsewhere."""
    client = scope.get("client")
    if not client or not is_loopback_address(client[0]):
        return False
    telling = [pair for pair in scope["headers"] if pair[0] in _TELLING]
    return all(name not in FORWARDED and _names_loopback(value) for name, value in telling)


@lru_cache(maxsize=1024)
def is_loopback_address(text: str) -> bool:
    """127.0.0.0/8, ::1, and the former written as IPv6."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


@lru_cache(maxsize=1024)
def _names_loopback(host_or_origin: bytes) -> bool:
    """Of `localhost:3001` (Host) as of `http://localhost:3001` (Origin)."""
    text = host_or_origin.decode("latin-1")
    try:
        host = urlsplit(text if "://" in text else f"//{text}").hostname or ""
    except ValueError:
        return False
    return host == "localhost" or host.endswith(".localhost") or is_loopback_address(host)
