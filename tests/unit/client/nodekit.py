"""A node that says what the test wants, on a real socket, to any number of clients."""

import socketserver
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from p2pq.wire import control
from p2pq.wire.control import Counts, Done, Failed, Hello, JobView, TaskView, Welcome

JOB = "abcdefghijklmnop"
GONE = object()
"""In the place of a reply: the connection breaks."""
HANG = object()
"""In the place of a reply: nothing more is said until the client goes."""
WELCOME = Welcome(id="abc", name="n", version="1")


def job_view(state="running", **fields):
    plain = {
        "job": JOB,
        "name": "mysim",
        "owner": "me",
        "tasks": Counts(total=2),
        "attempts": 0,
        "submitted": "now",
        "results": "/r",
    }
    return JobView(state=state, **(plain | fields))


def task_view(task, state="done", **fields):
    return TaskView(task=task, state=state, **fields)


class Node(socketserver.ThreadingUnixStreamServer):
    """Answers requests by their type with ``answers``, or what these return of it; ``Failed`` ends an answer, else ``Done`` does.

    Say ``with``.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, home: Path):
        home.mkdir()
        (home / "api.token").write_bytes(b"token")
        super().__init__(str(home / "node.sock"), _Client)
        self.home = home
        self.greeting = WELCOME
        self.answers: dict[type, list[object] | Callable[[object], Iterable[object]]] = {}
        self.heard: list[object] = []
        self.greeted = 0
        """Connections so far."""
        self.hanging = threading.Semaphore(0)
        """Released for each client that waits in vain."""
        self.left = threading.Semaphore(0)
        """Released for each of these that has gone."""
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    def handle_error(self, request, client_address):
        """Say nothing of clients that have gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Client(socketserver.StreamRequestHandler):
    def handle(self):
        assert self.read(Hello).token == b"token"
        self.server.greeted += 1
        self.say(self.server.greeting)
        while (request := self.read(control.ControlRequest)) is not None:
            self.server.heard.append(request)
            answer = self.server.answers.get(type(request), ())
            for reply in (*(answer(request) if callable(answer) else answer), Done()):
                if reply is GONE:
                    return
                if reply is HANG:
                    self.server.hanging.release()
                    assert self.rfile.read(1) == b""
                    self.server.left.release()
                    return
                self.say(reply)
                if isinstance(reply, Failed):
                    break

    def read(self, kind):
        size = self.rfile.read(4)
        return msgspec.msgpack.decode(self.rfile.read(int.from_bytes(size, "big")), type=kind) if size else None

    def say(self, message):
        body = msgspec.msgpack.encode(message)
        self.wfile.write(len(body).to_bytes(4, "big") + body)
