"""The program that builds an environment inside the sandbox of a build: standard library only.

It runs the steps of a plan (``uv`` and Python) one after another, and passes connections to the loopback address, the only one
that there is in the sandbox, on to a proxy of the daemon, which decides where they lead. Whatever it prints is for people.

The plan is JSON: ``proxy`` (a Unix socket, or empty), ``steps`` (each with ``argv``, with ``out``: the file that takes what it
prints on standard output, or empty, and with ``may_fail``).
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PIECE_BYTES = 64 << 10
BACKLOG = 64


def main(path: str) -> int:
    """Run the plan in a file; return the exit status of the step that failed, or 0."""
    with open(path, encoding="utf-8") as file:
        plan = json.load(file)
    env = dict(os.environ)
    if plan["proxy"]:
        address = f"http://127.0.0.1:{listen(plan['proxy'])}"
        env |= dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy"), address)
    for step in plan["steps"]:
        code = run(step, env)
        if code and not step["may_fail"]:
            return code
    return 0


def run(step: "dict[str, Any]", env: "dict[str, str]") -> int:
    """Run one step; a signal that ends it counts as in a shell."""
    out = os.open(step["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if step["out"] else None
    try:
        code = subprocess.call(step["argv"], env=env, stdin=subprocess.DEVNULL, stdout=out)
    finally:
        if out is not None:
            os.close(out)
    return 128 - code if code < 0 else code


def listen(proxy: str) -> int:
    """Pass connections on to a Unix socket, in threads that end with this process; return the port."""
    server = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)

    def serve() -> None:
        while True:
            near = server.accept()[0]
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(proxy)
            except OSError:
                near.close()
                far.close()
                continue
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=copy, args=(source, target), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    port: int = server.getsockname()[1]
    return port


def copy(source: socket.socket, target: socket.socket) -> None:
    """Pass on what comes until it ends, and that it ended."""
    try:
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for each in (source, target):
            with contextlib.suppress(OSError):  # it has ended already
                each.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
