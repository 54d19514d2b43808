"""Processes of ``p2pq`` that are forked off one that has imported it: each start costs what it does, not what Python's does.

``python forking.py FD`` serves the socket it is given. Each message brings the arguments, the environment and the folder of one
process, its standard streams and a pipe; its process id and, when it has ended, its wait status come back through the pipe.
Whoever is forked off knows nothing of others: like a fresh start it begins with the command line's own ``main``.
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import inspect
import json
import os
import pkgutil
import random
import select
import socket
import struct
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import p2pq
from p2pq.cli.main import main
from p2pq.daemon import crashpoints

ROOT = Path(__file__).parents[2]
MESSAGE_BYTES_MAX = 1 << 20
NUMBER = struct.Struct("=i")
STREAMS = 3
CLONE_NEWNET = 0x40000000
STARTING = inspect.signature(subprocess.Popen._execute_child)
LOCK = threading.Lock()
FILES = ("p2cread", "p2cwrite", "c2pwrite", "c2pread", "errwrite", "errread")


class Server:
    """The process that the others are forked off."""

    def __init__(self, control: socket.socket) -> None:
        """Take the socket over which processes are asked for."""
        self.control = control
        self.alive: dict[int, tuple[int, int]] = {}
        """By pidfd: the process and the pipe on which its end is told."""

    def serve(self) -> list[str] | None:
        """Fork off what is asked for; return the arguments in each of those, None here when nobody can ask any more."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd in self.alive:
                    poll.unregister(fd)
                    self.tell_end(fd)
                    continue
                message, fds, *_ = socket.recv_fds(self.control, MESSAGE_BYTES_MAX, STREAMS + 2)
                if not message:
                    return None
                order = json.loads(message)
                pid = os.fork()
                if pid == 0:
                    self.become(order, fds)
                    return order["args"]
                *streams, pipe = fds
                for each in streams:
                    os.close(each)
                with contextlib.suppress(BrokenPipeError):
                    os.write(pipe, NUMBER.pack(pid))
                end = os.pidfd_open(pid)
                self.alive[end] = (pid, pipe)
                poll.register(end, select.POLLIN)

    def tell_end(self, end: int) -> None:
        """Say how a process ended."""
        pid, pipe = self.alive.pop(end)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):
            os.write(pipe, NUMBER.pack(status))
        os.close(pipe)
        os.close(end)

    def become(self, order: dict[str, object], fds: list[int]) -> None:
        """Make a fork what a fresh start would be."""
        *streams, network, pipe = fds
        self.control.close()
        for end, (_, other) in self.alive.items():
            os.close(end)
            os.close(other)
        os.close(pipe)
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
            os.close(fd)
        if order["netns"]:
            os.close(network)
            network = os.open(f"/run/netns/{order['netns']}", os.O_RDONLY)
        if os.geteuid() == 0:
            enter(network)
        os.close(network)
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        os.umask(order["umask"])
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  for as long as the process
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.stdin.reconfigure(errors="surrogateescape" if not sys.flags.utf8_mode else "strict")
        random.seed()
        if crashpoints.VARIABLE in os.environ:
            importlib.reload(crashpoints)  # it reads the environment once


def enter(netns: int) -> None:
    """Let this thread, and all that it starts from now on, go into an open network namespace. Needs root."""
    if ctypes.CDLL(None, use_errno=True).setns(netns, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "the network namespace cannot be entered")


def import_all() -> None:
    """Import the whole of p2pq, so that no fork has to."""
    for module in pkgutil.walk_packages(p2pq.__path__, "p2pq."):
        if module.name not in {"p2pq.__main__", "p2pq.joblib"}:
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


@cache
def server() -> socket.socket:
    """Return the socket of this process's own server, which ends when this process does."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with theirs:
        argv = [sys.executable, __file__, str(theirs.fileno())]
        env = {**os.environ, "PYTHONPATH": path}
        process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], env=env, cwd="/", stdin=subprocess.DEVNULL)
    atexit.register(process.wait)
    atexit.register(control.close)
    return control


class Fork(subprocess.Popen[str]):
    """A process of ``p2pq``, of which only arguments, environment, folder, standard streams and network can be chosen."""

    def __init__(self, args: list[str], *, netns: str, **options: object) -> None:
        """Start it in a network namespace, if one is named."""
        self._netns = netns
        super().__init__(args, **options)

    def _execute_child(self, args: list[str], *rest: object) -> None:
        """Have it forked off: what ``Popen`` calls to start it."""
        asked = STARTING.bind(self, args, *rest).arguments
        files = [asked[name] for name in FILES]
        told, theirs = os.pipe()
        try:
            cwd = str(asked["cwd"] or Path.cwd())
            os.umask(mask := os.umask(0o77))
            order = {"args": list(args), "env": asked["env"], "cwd": cwd, "netns": self._netns, "umask": mask}
            streams = [number if fd == -1 else fd for number, fd in enumerate(files[::2])]
            # As a child of this thread it would be in the same network, wherever the server was when it began.
            network = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            with LOCK:
                control = server()
            try:
                socket.send_fds(control, [json.dumps(order).encode()], [*streams, network, theirs])
            finally:
                os.close(network)
        finally:
            os.close(theirs)
            p2c, c2p, err = files[:2], files[3:1:-1], files[5:3:-1]
            self._close_pipe_fds(*p2c, *c2p, *err)
        self._child_created = True
        self._told = told
        self.pid = NUMBER.unpack(os.read(told, NUMBER.size))[0]

    def _internal_poll(self, **_: object) -> int | None:
        """Return how it ended, if it has: what ``Popen.poll`` calls."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self._note_end()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        """Wait for its end: what ``Popen.wait`` calls."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self._note_end()
        return self.returncode

    def _note_end(self) -> None:
        [status] = NUMBER.unpack(os.read(self._told, NUMBER.size))
        os.close(self._told)
        self.returncode = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    import_all()
    args = Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if args is not None:
        sys.argv[1:] = args
        main(args)
