"""The proxy between this node and the indexes of packages, where its owner has set one: ``HTTPS_PROXY`` and its kin.

Builds never learn of it: the daemon speaks to it, so that a password in its address stays here.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from p2pq.errors import ConfigError

PORT: Final = 80

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Upstream:
    """An HTTP proxy."""

    host: str
    port: int
    headers: bytes = b""
    """What it is told besides: who asks."""

    @property
    def address(self) -> Host:
        """Where it listens."""
        return self.host, self.port


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which one leads to a host."""

    https: Upstream | None = None
    http: Upstream | None = None
    spared: tuple[str, ...] = ()
    """Hosts that are reached without one, with all below them; ``*`` is all."""

    def to(self, host: str, *, secure: bool) -> Upstream | None:
        """Return the proxy by which a host is reached; None if it is reached without."""
        if any(name in ("*", host) or host.endswith(f".{name}") for name in self.spared):
            return None
        return self.https if secure else self.http


NONE: Final = Proxies()


def find(environ: Mapping[str, str]) -> Proxies:
    """Return what ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` say; the small names come first.

    Raises:
        ConfigError: one is of a kind that is not supported.
    """

    def said(name: str) -> str:
        return environ.get(name.lower(), "") or environ.get(name, "")

    names = [
        name.strip().lower().lstrip("*").lstrip(".") or "*" for name in said("NO_PROXY").split(",") if name.strip()
    ]
    return Proxies(
        _upstream("HTTPS_PROXY", said("HTTPS_PROXY") or said("ALL_PROXY")),
        _upstream("HTTP_PROXY", said("HTTP_PROXY") or said("ALL_PROXY")),
        tuple(name.partition(":")[0] for name in names),
    )


def _upstream(name: str, text: str) -> Upstream | None:
    if not text:
        return None
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or PORT
    except ValueError:
        raise ConfigError(f"{name} is no address; write http://HOST:PORT") from None
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(
            f"{name} names a proxy of kind {parts.scheme!r}; builds of environments can use http://HOST:PORT only"
        )
    headers = b""
    if parts.username is not None:
        who = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers = b"Proxy-Authorization: Basic " + base64.b64encode(who) + b"\r\n"
    return Upstream(parts.hostname, port, headers)
