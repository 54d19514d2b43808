"""Start a node in the background and wait until it serves."""

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from p2pq.errors import ConfigError, NodeUnreachableError

READY_S: Final = 30.0
_SAID_BYTES_MAX: Final = 16_384


def start_node(home: Path, options: Sequence[str] = ()) -> str:
    """Start ``p2pq node`` on that home, detached from this terminal; return its ``ready`` line.

    Args:
        home: the node's P2PQ_HOME.
        options: of ``p2pq node``.

    Raises:
        ConfigError: it ended because of a setting or its folder; the message is what it said.
        NodeUnreachableError: it ended for another reason, or was not ready in time; the message is what it said.
    """
    reader, writer = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "p2pq", "--home", str(home), "node", *options],
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "P2PQ_DETACHED": "1"},
        )
    finally:
        os.close(writer)
    try:
        return _ready_line(reader, process)
    finally:
        os.close(reader)


def _ready_line(reader: int, process: "subprocess.Popen[bytes]") -> str:
    said = b""
    deadline = time.monotonic() + READY_S
    with selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            part = os.read(reader, _SAID_BYTES_MAX)
            said = (said + part)[-_SAID_BYTES_MAX:]
            for line in said.decode(errors="replace").splitlines(keepends=True):
                if line.startswith("ready ") and line.endswith("\n"):
                    process.returncode = 0  # it lives on after this program; nobody waits for it
                    return line.strip()
            if not part:
                kind = ConfigError if process.wait() == ConfigError.exit_code else NodeUnreachableError
                lines = said.decode(errors="replace").strip().splitlines() or ["the node ended without a word"]
                sentences = [line.removeprefix("p2pq: ") for line in lines if line.startswith("p2pq: ")]
                raise kind((sentences or lines)[-1])
    process.terminate()
    process.wait()
    raise NodeUnreachableError(f"the node was not ready after {READY_S:g} s; run `p2pq node` to see why")
