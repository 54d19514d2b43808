"""The X protocol: with a real server, and with what only claims to be one."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pq.daemon.sensors.xclient import XAnswerError, XClient, XGoneError
from tests.desktopkit import x_server

GET_INPUT_FOCUS = 43
GET_GEOMETRY = 14
CREATE_WINDOW = 1
CHANGE_PROPERTY = 18
PROPERTY_CHANGES = 1 << 22


def setup(roots: int = 1, vendor: bytes = b"vendor") -> bytes:
    """Return what a server says first."""
    body = struct.pack("<IIII", 1, 0x200000, 0x1FFFFF, 256) + struct.pack(
        "<HH4B4B", len(vendor), 65535, roots, 1, 0, 0, 32, 32, 8, 255
    )
    body += bytes(4) + vendor + bytes(-len(vendor) % 4) + bytes(8)
    body += struct.pack("<5I2H", 77, 32, 0xFFFFFF, 0, 0, 640, 480) + bytes(8) + struct.pack("<IBBBB", 33, 0, 0, 24, 1)
    return struct.pack("<BxHHH", 1, 11, 0, len(body) // 4) + body


@contextmanager
def server(tmp_path: Path, serve: Callable[[socket.socket], None]) -> Iterator[Path]:
    """Listen as X server 5, and treat whoever comes in some way."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "X5"))
        listening.listen()

        def run() -> None:
            with listening.accept()[0] as caller:
                caller.settimeout(20)
                caller.recv(1000)
                serve(caller)
                while caller.recv(1000):  # until the caller closes
                    pass

        thread = threading.Thread(target=run)
        thread.start()
        yield tmp_path
        thread.join()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "timed out"),
        (setup()[:50], "timed out"),
        (struct.pack("<BBHHH", 0, 6, 11, 0, 2) + b"No way..", "No way"),
        (struct.pack("<BBHHH", 0, 0, 11, 0, 0), "refused"),
        (struct.pack("<BxHHH", 1, 11, 0, 2) + bytes(8), "no X server"),
    ],
)
def test_who_is_no_server_is_let_go_of(tmp_path: Path, said: bytes, why: str) -> None:
    with server(tmp_path, lambda caller: caller.sendall(said)) as folder:
        began = time.monotonic()
        with pytest.raises(XGoneError, match=why):
            XClient(5, b"", answer_s=0.05, folder=str(folder))
        assert time.monotonic() - began < 10


def test_who_is_not_there_is_gone(tmp_path: Path) -> None:
    with pytest.raises(XGoneError, match="No such file"):
        XClient(5, b"", answer_s=0.05, folder=str(tmp_path))


def test_a_server_says_what_it_has_and_may_send_in_pieces(tmp_path: Path) -> None:
    def serve(caller: socket.socket) -> None:
        for byte in setup():
            caller.send(bytes([byte]))

    with server(tmp_path, serve) as folder:
        client = XClient(5, b"cookie", answer_s=20, folder=str(folder))
        screen = client.screen
        assert (screen.root, screen.width, screen.height, screen.white, screen.black) == (77, 640, 480, 0xFFFFFF, 0)
        assert (screen.visual, screen.depth, screen.colormap) == (33, 24, 32)
        assert (client.new_id(), client.new_id()) == (0x200001, 0x200002)
        client.close()


@pytest.mark.parametrize(
    "said",
    [b"", b"\x01\x00\x01\x00" + bytes(20), struct.pack("<BxHI", 1, 1, 0x10000000) + bytes(24)],
    ids=["nothing", "half an answer", "too long an answer"],
)
def test_an_answer_that_does_not_come_ends_the_connection(tmp_path: Path, said: bytes) -> None:
    def serve(caller: socket.socket) -> None:
        caller.sendall(setup())
        caller.recv(1000)
        caller.sendall(said)

    with server(tmp_path, serve) as folder:
        client = XClient(5, b"", answer_s=0.2, folder=str(folder))
        with pytest.raises(XGoneError):
            client.ask(GET_INPUT_FOCUS, 0, b"")
        client.close()


def test_answers_to_others_and_events_are_told_apart(tmp_path: Path) -> None:
    event = struct.pack("<BxHI", 28, 1, 99) + bytes(24)
    generic = struct.pack("<BxHI", 35, 1, 2) + bytes(24) + bytes(8)

    def serve(caller: socket.socket) -> None:
        caller.sendall(setup())
        caller.recv(1000)
        late = struct.pack("<BBHI", 0, 3, 7, 0) + bytes(24)
        caller.sendall(late + event + generic + struct.pack("<BBHI", 1, 42, 1, 1) + bytes(24) + b"more")

    with server(tmp_path, serve) as folder:
        client = XClient(5, b"", answer_s=20, folder=str(folder))
        answer = client.ask(GET_INPUT_FOCUS, 0, b"")
        assert (answer[1], answer[-4:]) == (42, b"more")
        assert client.events() == [event, generic]
        assert client.events() == []
        client.close()


@pytest.mark.desktop
def test_a_real_server_answers_refuses_and_tells_what_happens(tmp_path: Path) -> None:
    with x_server(tmp_path, "800x600") as real:
        client = XClient(real.number, b"", answer_s=20)
        other = XClient(real.number, b"", answer_s=20)
        assert (client.screen.width, client.screen.height) == (800, 600)
        assert client.extension("MIT-SCREEN-SAVER") >= 128
        assert client.extension("NONE-OF-THESE") == 0
        with pytest.raises(XAnswerError, match="of request 14"):
            client.ask(GET_GEOMETRY, 0, struct.pack("<I", 0x7777))
        window = client.new_id()
        root = client.screen.root
        attributes = struct.pack("<IIhhHHHHIII", window, root, 0, 0, 10, 10, 0, 1, 0, 1 << 11, PROPERTY_CHANGES)
        client.tell(CREATE_WINDOW, 0, attributes)
        client.ask(GET_INPUT_FOCUS, 0, b"")
        other.tell(CHANGE_PROPERTY, 0, struct.pack("<IIIBxxxIII", window, other.atom("P2PQ"), 6, 32, 2, 7, 9))
        assert other.property(window, "P2PQ") == (7, 9)
        assert other.property(window, "P3PQ") == ()
        other.tell(CHANGE_PROPERTY, 0, struct.pack("<IIIBxxxI4s", window, other.atom("TEXT"), 31, 8, 4, b"text"))
        assert other.property(window, "TEXT") == ()
        client.ask(GET_INPUT_FOCUS, 0, b"")
        assert [event[0] for event in client.events()] == [28, 28]
        real.close()
        with pytest.raises(XGoneError):
            client.ask(GET_INPUT_FOCUS, 0, b"")
        with pytest.raises(XGoneError):
            other.events()
        client.close()
        other.close()


@pytest.mark.desktop
def test_a_server_that_wants_a_cookie_gets_it(tmp_path: Path) -> None:
    secret = bytes(range(16))
    authority = tmp_path / "authority"
    fields = (b"", b"", b"MIT-MAGIC-COOKIE-1", secret)
    authority.write_bytes(b"\xff\xff" + b"".join(struct.pack(">H", len(field)) + field for field in fields))
    with x_server(tmp_path, "80x60", "-auth", str(authority)) as real:
        with pytest.raises(XGoneError, match="COOKIE"):
            XClient(real.number, bytes(16), answer_s=20)
        XClient(real.number, secret, answer_s=20).close()


@pytest.mark.desktop
def test_a_server_that_stands_still_is_let_go_of(tmp_path: Path) -> None:
    with x_server(tmp_path) as real:
        client = XClient(real.number, b"", answer_s=0.05)
        os.kill(real.process.pid, 19)
        try:
            with pytest.raises(XGoneError, match="timed out"):
                client.ask(GET_INPUT_FOCUS, 0, b"")
        finally:
            os.kill(real.process.pid, 18)
        client.close()
