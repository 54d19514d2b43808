"""A connection to the local node for a program that is over before msgspec is imported; messages are dicts.

Nothing is put into words here and no limits are checked: where anything is amiss, ask again through ``connection``, which does.
"""

import os
import socket

from p2pq import __version__
from p2pq.errors import Reject
from p2pq.homes import TOKEN_FILE, socket_name
from p2pq.wire import local, plainpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any, Self


class QuickConnection:
    """An open connection to a node's Unix socket; a context manager."""

    def __init__(self, home: str) -> None:
        """Connect to the node of a home, which has its one name, and greet it.

        Raises:
            ConfigError: there cannot be a socket.
            OSError, EOFError: no node answers there.
            Reject: it does not greet back.
        """
        with open(os.path.join(home, TOKEN_FILE), "rb") as file:
            token = file.read()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(local.CONNECT_S)
            self._socket.connect(socket_name(home))
            self._stream = self._socket.makefile("rb")
            self._send({"type": "Hello", "api": local.API_VERSION, "token": token, "version": __version__})
            welcome = plainpack.unpack(self._frame())
            self._socket.settimeout(None)
        except BaseException:
            self._socket.close()
            raise
        if welcome["type"] != "Welcome":
            self._socket.close()
            raise Reject("it does not greet back")

    def __enter__(self) -> "Self":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Close the connection."""
        self._stream.close()
        self._socket.close()

    def ask(self, request: "dict[str, Any]") -> "Iterator[dict[str, Any]]":
        """Send a request and yield the items of the answer; the last one is ``Done`` or ``Failed``.

        Raises:
            UnicodeEncodeError, OverflowError: the request cannot be sent; nothing was.
            OSError, EOFError: the node went away.
            Reject: it answers what makes no sense.
        """
        self._send(request)
        while True:
            reply = plainpack.unpack(self._frame())
            yield reply
            if reply["type"] in ("Done", "Failed"):
                return

    def _send(self, message: "dict[str, Any]") -> None:
        body = plainpack.pack(message)
        if len(body) > local.FRAME_BYTES_MAX:
            raise OverflowError("too long for a frame")
        self._socket.sendall(len(body).to_bytes(local.LENGTH_BYTES, "big") + body)

    def _frame(self) -> bytes:
        size = int.from_bytes(self._exactly(local.LENGTH_BYTES), "big")
        if size > local.FRAME_BYTES_MAX:
            raise Reject("too long")
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError("the node went away")
        return data
