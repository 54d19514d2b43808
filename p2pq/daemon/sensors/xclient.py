"""The X protocol (version 11), as much as it takes to ask a server a few things and to draw on it.

Why neither Xlib nor another library: Xlib ends the process when its server ends, and all wait for as long as a server likes
(docs/adr/0402). Here nothing waits longer than it was told to; a server that goes, or takes too long, is ``XGoneError``, and
may be dialled again.
"""

import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from p2pq.daemon.sensors.xauthority import COOKIE

FOLDER: Final = "/tmp/.X11-unix"  # noqa: S108  where X servers of this machine listen
REPLY_BYTES_MAX: Final = 1 << 24
PACKET_BYTES: Final = 32
_SUCCESS: Final = 1
_ERROR: Final = 0
_REPLY: Final = 1
_GENERIC: Final = 35
_QUERY_EXTENSION: Final = 98
_INTERN_ATOM: Final = 16
_GET_PROPERTY: Final = 20


class XGoneError(Exception):
    """The server has gone, is silent, or does not let us in."""


class XAnswerError(Exception):
    """The server refuses a request: something that it names is not there (any more)."""


@dataclass(frozen=True, slots=True)
class Screen:
    """What a server says at first about its first screen, sizes in pixels."""

    root: int
    width: int
    height: int
    black: int
    white: int
    depth: int
    visual: int
    colormap: int
    low_bit_left: bool
    """Of the eight pixels in a byte of a bitmap the leftmost one is the lowest bit."""


def padded(data: bytes) -> bytes:
    """Return bytes with as many zeros as make their number a multiple of four."""
    return data + bytes(-len(data) % 4)


class XClient:
    """A connection to an X server of this machine. One request at a time; not for several threads."""

    def __init__(self, display: int, cookie: bytes, *, answer_s: float, folder: str = FOLDER) -> None:
        """Connect; nothing of this takes, and no answer may later take, more than ``answer_s`` seconds.

        Raises:
            XGoneError: nobody is there, or does not answer in time, or refuses us.
        """
        self.display = display
        self._answer_s = answer_s
        self._sequence = 0
        self._ids = 0
        self._buffer = bytearray()
        self._events: deque[bytes] = deque(maxlen=1000)
        self._extensions: dict[str, int] = {}
        self._atoms: dict[str, int] = {}
        self._deadline = time.monotonic() + answer_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(answer_s)
            self._socket.connect(f"{folder}/X{display}")
            self.screen = self._greet(cookie)
        except OSError as error:
            self._socket.close()
            raise XGoneError(str(error)) from error
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def fileno(self) -> int:
        """Return what becomes readable when something happens."""
        return self._socket.fileno()

    def new_id(self) -> int:
        """Return a name for something that is to be made."""
        self._ids += 1
        return self._id_base | self._ids

    def tell(self, opcode: int, detail: int, body: bytes) -> None:
        """Send a request that has no answer.

        Raises:
            XGoneError: the server has gone, or does not read.
        """
        body = padded(body)
        try:
            self._socket.sendall(struct.pack("<BBH", opcode, detail, 1 + len(body) // 4) + body)
        except OSError as error:
            raise XGoneError(str(error)) from error
        self._sequence = (self._sequence + 1) & 0xFFFF

    def ask(self, opcode: int, detail: int, body: bytes) -> bytes:
        """Send a request and return its answer.

        Raises:
            XAnswerError: the server refuses it.
            XGoneError: the server has gone, or does not answer in time.
        """
        self.tell(opcode, detail, body)
        self._deadline = time.monotonic() + self._answer_s
        while True:
            packet = self._packet()
            if packet[0] in (_ERROR, _REPLY) and struct.unpack_from("<H", packet, 2)[0] == self._sequence:
                if packet[0] == _ERROR:
                    raise XAnswerError(f"error {packet[1]} of request {opcode}")
                return packet
            if packet[0] not in (_ERROR, _REPLY):
                self._events.append(packet)

    def events(self) -> list[bytes]:
        """Return what happened since the last call, without waiting; errors of requests without an answer are dropped.

        Raises:
            XGoneError: the server has gone.
        """
        try:
            self._socket.setblocking(False)
            while part := self._socket.recv(65_536):
                self._buffer += part
            raise XGoneError("connection closed")
        except BlockingIOError:
            pass
        except OSError as error:
            raise XGoneError(str(error)) from error
        finally:
            self._socket.settimeout(self._answer_s)
        while (size := self._packet_size()) and len(self._buffer) >= size:
            packet = self._take(size)
            if packet[0] not in (_ERROR, _REPLY):
                self._events.append(packet)
        found = list(self._events)
        self._events.clear()
        return found

    def extension(self, name: str) -> int:
        """Return the opcode of an extension, 0 where the server lacks it."""
        if name not in self._extensions:
            body = struct.pack("<HH", len(name), 0) + name.encode()
            reply = self.ask(_QUERY_EXTENSION, 0, body)
            self._extensions[name] = reply[9] if reply[8] else 0
        return self._extensions[name]

    def atom(self, name: str) -> int:
        """Return the number of a name; the server remembers it from now on."""
        if name not in self._atoms:
            reply = self.ask(_INTERN_ATOM, 0, struct.pack("<HH", len(name), 0) + name.encode())
            self._atoms[name] = struct.unpack_from("<I", reply, 8)[0]
        return self._atoms[name]

    def property(self, window: int, name: str) -> tuple[int, ...]:
        """Return a window's property as numbers; none where it has no such, or one of another format."""
        body = struct.pack("<5I", window, self.atom(name), 0, 0, 64)
        reply = self.ask(_GET_PROPERTY, 0, body)
        (count,) = struct.unpack_from("<I", reply, 16)
        if reply[1] != 32 or len(reply) < PACKET_BYTES + 4 * count:  # noqa: PLR2004  bits
            return ()
        return struct.unpack_from(f"<{count}I", reply, PACKET_BYTES)

    # ------------------------------------------------------------------ bytes

    def _greet(self, cookie: bytes) -> Screen:
        name = COOKIE if cookie else b""
        self._socket.sendall(
            struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(cookie)) + padded(name) + padded(cookie)
        )
        head = self._exactly(8)
        body = self._exactly(4 * struct.unpack_from("<H", head, 6)[0])
        if head[0] != _SUCCESS:
            raise XGoneError(body[: head[1]].decode(errors="replace").strip() or "refused")
        try:
            self._id_base = int(struct.unpack_from("<I", body, 4)[0])  # how many ids there are we never come to learn
            (vendor_bytes,) = struct.unpack_from("<H", body, 16)
            at = 32 + len(padded(bytes(vendor_bytes))) + 8 * body[21]
            root, colormap, white, black, _, width, height = struct.unpack_from("<5I2H", body, at)
            visual, depth = struct.unpack_from("<IxxB", body, at + 32)
        except (struct.error, IndexError) as error:
            raise XGoneError("what listens there is no X server") from error
        return Screen(root, width, height, black, white, depth, visual, colormap, body[23] == 0)

    def _packet(self) -> bytes:
        while True:
            size = self._packet_size()
            if size and len(self._buffer) >= size:
                return self._take(size)
            self._more()

    def _packet_size(self) -> int:
        """Return how long the next packet is, 0 where that is not known yet."""
        if len(self._buffer) < PACKET_BYTES:
            return 0
        more = struct.unpack_from("<I", self._buffer, 4)[0] * 4 if self._buffer[0] & 0x7F in (_REPLY, _GENERIC) else 0
        if more > REPLY_BYTES_MAX:
            raise XGoneError("it says that it sends more than any answer is long")
        return PACKET_BYTES + int(more)

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _more(self) -> None:
        """Read on, until the deadline of what is being asked."""
        left = self._deadline - time.monotonic()
        try:
            self._socket.settimeout(max(0.0005, left))
            part = self._socket.recv(65_536)
        except OSError as error:
            raise XGoneError(str(error)) from error
        finally:
            self._socket.settimeout(self._answer_s)
        if not part:
            raise XGoneError("connection closed")
        self._buffer += part
