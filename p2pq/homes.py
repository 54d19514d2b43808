"""Where a node lives, as the node and its clients both have to know: its home, its socket, its token; and who may use it."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import platformdirs

from p2pq.errors import ConfigError, RefusedError

TOKEN_FILE: Final = "api.token"  # noqa: S105  its name
"""In the home: what a local client must show."""
SOCKET_PATH_BYTES_MAX: Final = 100
"""A socket's address holds 108 bytes on Linux and 104 on macOS, with its closing zero."""


def default_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the home to use where none is named: ``P2PQ_HOME``, else the user's data folder."""
    named = environ.get("P2PQ_HOME")
    return Path(named).expanduser() if named else Path(platformdirs.user_data_dir("p2pq"))


def plain_path(home: Path) -> Path:
    """Return a home's one name: absolute and free of symbolic links."""
    return home.expanduser().resolve()


def socket_path(home: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the local API listens: ``HOME/node.sock``, or a short path in XDG_RUNTIME_DIR where that is too long.

    Raises:
        ConfigError: it is too long and there is no XDG_RUNTIME_DIR.
    """
    direct = home / "node.sock"
    if len(os.fsencode(direct)) <= SOCKET_PATH_BYTES_MAX:
        return direct
    runtime = environ.get("XDG_RUNTIME_DIR")
    if not runtime:
        raise ConfigError(
            f"{home}: too long a path for a socket, and XDG_RUNTIME_DIR is not set; "
            "use a shorter P2PQ_HOME or set XDG_RUNTIME_DIR"
        )
    name = hashlib.blake2b(os.fsencode(home), digest_size=8).hexdigest()
    return Path(runtime) / "p2pq" / name


def refuse_root(environ: Mapping[str, str] = os.environ) -> None:
    """Refuse to go on as root unless the user said so.

    Raises:
        RefusedError: root without ``P2PQ_ALLOW_ROOT=1``.
    """
    if os.geteuid() == 0 and environ.get("P2PQ_ALLOW_ROOT") != "1":
        raise RefusedError("p2pq does not run as root; use an ordinary user, or set P2PQ_ALLOW_ROOT=1 if you mean it")
