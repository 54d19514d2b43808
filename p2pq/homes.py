"""Where a node lives, as the node and its clients both have to know: its home, its socket, its token; and who may use it.

What takes long to import (``pathlib``, too) is imported where it is needed: ``p2pq run`` has to start at once.
"""

import os
import sys

from p2pq.errors import ConfigError, RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Final

TOKEN_FILE: "Final" = "api.token"  # noqa: S105  its name
"""In the home: what a local client must show."""
SOCKET_PATH_BYTES_MAX: "Final" = 100
"""A socket's address holds 108 bytes on Linux and 104 on macOS, with its closing zero."""


def default_home(environ: "Mapping[str, str]" = os.environ) -> str:
    """Return the home to use where none is named, as text: ``P2PQ_HOME``, else the user's data folder."""
    named = environ.get("P2PQ_HOME")
    if named:
        return os.path.expanduser(named)
    if sys.platform == "linux":  # as platformdirs has it
        data = environ.get("XDG_DATA_HOME", "").strip() or os.path.expanduser("~/.local/share")
        return os.path.join(data, "p2pq")
    else:  # noqa: RET505  or mypy would ask what it is for
        import platformdirs  # noqa: PLC0415  slow to import

        return platformdirs.user_data_dir("p2pq")


def default_path(environ: "Mapping[str, str]" = os.environ) -> "Path":
    """Return ``default_home`` as a path."""
    from pathlib import Path  # noqa: PLC0415  slow to import

    return Path(default_home(environ))


def plain_path(home: "Path") -> "Path":
    """Return a home's one name: absolute and free of symbolic links."""
    return home.expanduser().resolve()


def socket_path(home: "Path", environ: "Mapping[str, str]" = os.environ) -> "Path":
    """Return ``socket_name`` of a home as a path."""
    return type(home)(socket_name(str(home), environ))


def socket_name(home: str, environ: "Mapping[str, str]" = os.environ) -> str:
    """Return where the local API listens: ``HOME/node.sock``, or a short path in XDG_RUNTIME_DIR where that is too long.

    Raises:
        ConfigError: it is too long and there is no XDG_RUNTIME_DIR.
    """
    direct = os.path.join(home, "node.sock")
    if len(os.fsencode(direct)) <= SOCKET_PATH_BYTES_MAX:
        return direct
    runtime = environ.get("XDG_RUNTIME_DIR")
    if not runtime:
        raise ConfigError(
            f"{home}: too long a path for a socket, and XDG_RUNTIME_DIR is not set; "
            "use a shorter P2PQ_HOME or set XDG_RUNTIME_DIR"
        )
    import hashlib  # noqa: PLC0415  seldom needed

    name = hashlib.blake2b(os.fsencode(home), digest_size=8).hexdigest()
    return os.path.join(runtime, "p2pq", name)


def refuse_root(environ: "Mapping[str, str]" = os.environ) -> None:
    """Refuse to go on as root unless the user said so.

    Raises:
        RefusedError: root without ``P2PQ_ALLOW_ROOT=1``.
    """
    if os.geteuid() == 0 and environ.get("P2PQ_ALLOW_ROOT") != "1":
        raise RefusedError("p2pq does not run as root; use an ordinary user, or set P2PQ_ALLOW_ROOT=1 if you mean it")
