"""Import the daemon in less time and memory than a plain import: a node that starts by itself is being waited for."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_CERTIFICATES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")

Run = Callable[..., int]


def load() -> Run:
    """Import ``p2pq.daemon.app`` and return its ``run``."""
    with _no_collections(), _no_certificates():
        from p2pq.daemon.app import run  # noqa: PLC0415  this import is what it is about
    return run


@contextmanager
def _no_collections() -> Iterator[None]:
    """Collect no garbage meanwhile: imports make much that stays and hardly any garbage. What stays is never looked at again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


@contextmanager
def _no_certificates() -> Iterator[None]:
    """Give OpenSSL an empty store: aiohttp reads all of the system's authorities when it is imported, and p2pq speaks no TLS."""
    before = {name: os.environ.get(name) for name in _CERTIFICATES}
    os.environ.update(dict.fromkeys(_CERTIFICATES, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
