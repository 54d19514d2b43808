"""Desktops for tests: an X server, a message bus and services on it, each of a test's own.

Tests that use them are marked ``desktop``.
"""

import contextlib
import os
import struct
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jeepney import (
    DBusAddress,
    HeaderFields,
    Message,
    MessageType,
    new_error,
    new_method_call,
    new_method_return,
    new_signal,
)
from jeepney.io.blocking import open_dbus_connection

from p2pq.daemon.sensors.xclient import PACKET_BYTES, XClient


class XServer:
    """An X server without a screen, on a display that was free."""

    def __init__(self, folder: Path, size: str = "1280x720", *arguments: str) -> None:
        ours, theirs = os.pipe()
        argv = ["Xvfb", "-displayfd", str(theirs), "-screen", "0", f"{size}x24", "-nolisten", "tcp", "-noreset"]
        self.process = subprocess.Popen(
            [*argv, *arguments], pass_fds=[theirs], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        with os.fdopen(ours, encoding="ascii") as said:
            self.number = int(said.readline())
        self.environ = {"DISPLAY": f":{self.number}", "HOME": str(folder), "PATH": os.environ["PATH"]}
        self.environ |= {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/none", "DBUS_SESSION_BUS_ADDRESS": "unix:path=/none"}

    def do(self, *argv: str) -> str:
        """Run a program there to its end, and return what it prints."""
        done = subprocess.run(
            argv, env=self.environ, capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL
        )
        return done.stdout

    def key(self) -> None:
        """Press and release a key."""
        self.do("xdotool", "key", "a")

    def pixels(self) -> tuple[int, int, bytes]:
        """Return width, height and, row by row, red, green and blue of every pixel of the screen."""
        client = XClient(self.number, b"", answer_s=20)
        width, height = client.screen.width, client.screen.height
        body = struct.pack("<IhhHHI", client.screen.root, 0, 0, width, height, 0xFFFFFFFF)
        data = client.ask(73, 2, body)[PACKET_BYTES:]
        client.close()
        colors = bytearray(3 * width * height)
        for at in range(3):
            colors[at::3] = data[2 - at :: 4]
        return width, height, bytes(colors)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


def png(width: int, height: int, colors: bytes) -> bytes:
    """Return a picture as a file of the format PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + colors[at : at + 3 * width] for at in range(0, len(colors), 3 * width))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@contextlib.contextmanager
def x_server(folder: Path, size: str = "1280x720", *arguments: str) -> Iterator[XServer]:
    """Run an X server for a while."""
    server = XServer(folder, size, *arguments)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def message_bus(folder: Path) -> Iterator[str]:
    """Run a message bus for a while, and yield its address."""
    config = folder / "bus.conf"
    config.write_text(
        f"<busconfig><type>session</type><listen>unix:path={folder}/bus</listen><auth>EXTERNAL</auth>"
        '<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>'
    )
    argv = [
        "dbus-daemon",
        f"--config-file={config}",
        "--nofork",
        "--print-address",
    ]  # complains of limits that do not matter
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as daemon:
        assert daemon.stdout is not None
        try:
            yield daemon.stdout.readline().strip()
        finally:
            daemon.terminate()


Answers = Mapping[tuple[str, str], tuple[str, tuple[Any, ...]]]
"""To (path, method) the signature and the body of what is answered."""


class Service:
    """Answers on a bus, under some names, as a table says; the table may change."""

    def __init__(self, address: str, names: tuple[str, ...], answers: Callable[[], Answers]) -> None:
        self._answers = answers
        self.asked: list[tuple[str, str]] = []
        self._connection = open_dbus_connection(address)
        for name in names:
            request = DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
            self._connection.send_and_get_reply(new_method_call(request, "RequestName", "su", (name, 0)), timeout=20)
        self._ended = False
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def signal(self, path: str, interface: str, member: str, signature: str, body: tuple[Any, ...]) -> None:
        """Send a signal."""
        self._connection.send(new_signal(DBusAddress(path, interface=interface), member, signature, body))

    def close(self) -> None:
        """Leave the bus."""
        self._ended = True
        self._thread.join()
        self._connection.close()

    def _serve(self) -> None:
        while not self._ended:
            with contextlib.suppress(TimeoutError):
                self._answer(self._connection.receive(timeout=0.05))

    def _answer(self, message: Message) -> None:
        if message.header.message_type is not MessageType.method_call:
            return
        key = message.header.fields[HeaderFields.path], message.header.fields[HeaderFields.member]
        self.asked.append(key)
        answer = self._answers().get(key)
        if answer is None:
            self._connection.send(new_error(message, "org.freedesktop.DBus.Error.UnknownMethod"))
        else:
            self._connection.send(new_method_return(message, *answer))


@contextlib.contextmanager
def service(address: str, names: tuple[str, ...], answers: Callable[[], Answers]) -> Iterator[Service]:
    """Run a service for a while."""
    made = Service(address, names, answers)
    try:
        yield made
    finally:
        made.close()
