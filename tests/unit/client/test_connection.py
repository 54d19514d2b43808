"""The client's end of the local API, against a server that says what the test wants."""

import socket
import threading
from pathlib import Path

import msgspec
import pytest

from p2pq.client import framing
from p2pq.client.connection import Connection
from p2pq.client.framing import AnswerError
from p2pq.errors import NodeUnreachableError, RefusedError, RemoteProtocolError, UsageError
from p2pq.wire import control
from p2pq.wire.control import Done, Failed, Hello, Note, Welcome

WELCOME = Welcome(id="abc", name="n", version="1")


def frame(message):
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(4, "big") + body


class Server:
    """Answers each request of one client with the next of its scripts: bytes, sent as they are."""

    def __init__(self, path: Path, *scripts: bytes, split: int = 0):
        self.heard: list[object] = []
        self._scripts = scripts
        self._split = split
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        with self._listener, self._listener.accept()[0] as client, client.makefile("rb") as stream:
            for script in self._scripts:
                size = stream.read(4)
                if len(size) < 4:
                    return
                body = stream.read(int.from_bytes(size, "big"))
                self.heard.append(msgspec.msgpack.decode(body, type=Hello | control.ControlRequest))
                for at in range(0, len(script), self._split or len(script) or 1):
                    client.sendall(script[at : at + (self._split or len(script))])

    def join(self):
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "s"


def test_one_request_after_another(path):
    notes = b"".join(frame(Note(text=text)) for text in "ab") + frame(Done())
    server = Server(path, frame(WELCOME), notes, notes, frame(Done()), split=3)
    with Connection(path, b"token") as node:
        assert node.welcome == WELCOME
        assert node.all(control.Doctor(), Note) == [Note(text="a"), Note(text="b")]
        assert node.one(control.Why(job="abcd"), Note) == Note(text="b")
        with pytest.raises(RemoteProtocolError, match="without Note"):
            node.one(control.Why(job="abcd"), Note)
    server.join()
    assert server.heard[0].token == b"token"
    assert server.heard[1:] == [control.Doctor(), control.Why(job="abcd"), control.Why(job="abcd")]


def test_a_failure_carries_its_sentence_and_code(path):
    server = Server(path, frame(WELCOME), frame(Note(text="a")) + frame(Failed(message="no room", exit_code=4)))
    with Connection(path, b"") as node:
        with pytest.raises(AnswerError, match="no room") as caught:
            node.all(control.Doctor(), Note)
        assert caught.value.failed.exit_code == 4
    server.join()


@pytest.mark.parametrize(
    ("greeting", "error", "words"),
    [
        (frame(Failed(message="wrong token")), RefusedError, "wrong token"),
        (frame(Done()), RemoteProtocolError, "start it again"),
        (b"\xff\xff\xff\xff", RemoteProtocolError, "too large"),
        (b"\0\0\0\1\xc1", RemoteProtocolError, "makes no sense"),
        (b"\0\0", NodeUnreachableError, "p2pq start"),
        (b"", NodeUnreachableError, "p2pq start"),
    ],
)
def test_what_is_not_a_welcome(path, greeting, error, words):
    server = Server(path, greeting)
    with pytest.raises(error, match=words):
        Connection(path, b"")
    server.join()


def test_nobody_there(path):
    with pytest.raises(NodeUnreachableError, match=r"no node answers at .*start one with `p2pq start`"):
        Connection(path, b"")
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    with pytest.raises(NodeUnreachableError, match="start one with"):
        Connection(path, b"")
    path.unlink()
    path.parent.joinpath("loop").symlink_to("loop")
    with pytest.raises(NodeUnreachableError, match="symbolic links"):
        Connection(path.parent / "loop", b"")


def test_a_node_that_hangs_is_not_waited_for_forever(path, monkeypatch):
    monkeypatch.setattr(framing, "CONNECT_S", 0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(NodeUnreachableError, match="does not answer within"):
            Connection(path, b"")


def test_a_node_that_goes_away_in_the_middle(path):
    server = Server(path, frame(WELCOME), frame(Note(text="a")) + b"\0\0\0\5ab")
    with Connection(path, b"") as node:
        replies = node.ask(control.Doctor())
        assert next(replies) == Note(text="a")
        with pytest.raises(NodeUnreachableError, match="went away"):
            next(replies)
    server.join()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (control.Join(code="x"), "the code is too short, it has at least 8 characters; `p2pq invite` prints it whole"),
        (control.BanMember(who=""), "the name or id is empty; `p2pq members` lists"),
        (control.Show(job=""), "the job's id is empty; `p2pq jobs` lists the jobs"),
        (
            control.Show(job="j" * 65),
            "the job's id is too long, it has at most 64 characters; `p2pq jobs` lists the jobs",
        ),
        (control.MeshInit(name=""), "the name is empty$"),
        (control.Submit(folder="/", priority="much"), "priority: expected `int`, got `str`"),
        (control.Submit(folder="/" + "x" * 5000), "the folder is too long, it has at most 4096 characters"),
        (control.Submit(folder="/", priority=1 << 70), "the node cannot be told that: "),
        (control.Submit(folder="/", args=(object(),)), "the node cannot be told that: "),
        (control.Submit(folder="/caf\udce9"), "not UTF-8"),
        (control.Submit(folder="/", args=("\udce9",)), "not UTF-8"),
    ],
)
def test_what_the_node_would_not_understand_is_said_here(path, request_, words):
    server = Server(path, frame(WELCOME), frame(Done()))
    with Connection(path, b"") as node:
        with pytest.raises(UsageError, match=words):
            node.all(request_, Note)
        assert node.all(control.Doctor(), Note) == []  # nothing was sent; the connection is as good as before
    server.join()
    assert server.heard[1:] == [control.Doctor()]


def test_a_request_larger_than_a_frame_is_not_sent(path, monkeypatch):
    server = Server(path, frame(WELCOME))
    with Connection(path, b"") as node:
        monkeypatch.setattr(framing, "FRAME_BYTES_MAX", 1 << 20)
        with pytest.raises(UsageError, match="more than 1 MiB to tell the node; split it into several jobs"):
            node.all(control.Submit(folder="/f", args=("x" * 1024,) * 1025), Note)
    server.join()
    assert len(server.heard) == 1
