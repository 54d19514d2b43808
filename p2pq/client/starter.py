"""Start a node in the background and wait until it serves; with what ``p2pq start`` was told, until ``p2pq stop``."""

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from p2pq import decoders
from p2pq.errors import ConfigError, NodeUnreachableError, RefusedError

READY_S: Final = 30.0
OPTIONS_FILE: Final = "start.json"
"""In the home."""
_OPTIONS_BYTES_MAX: Final = 1 << 20
_SAID_BYTES_MAX: Final = 16_384


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``start`` was told; what it was not told is None, empty or false."""

    name: str | None = None
    slots: int | None = None
    listen: str | None = None
    peer: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    no_mdns: bool = False
    no_accept: bool = False
    bridge: bool = False
    load_probe: str | None = None
    flight: bool = False

    def over(self, kept: "Options") -> "Options":
        """Return these, and those of ``kept`` of which these say nothing."""
        given = {name: value for name in self.__struct_fields__ if _says(value := getattr(self, name))}
        return msgspec.structs.replace(kept, **given)

    def argv(self) -> list[str]:
        """Return them as a command line."""
        words: list[str] = []
        for name in self.__struct_fields__:
            value, option = getattr(self, name), f"--{name.replace('_', '-')}"
            if value is True:
                words.append(option)
            elif _says(value):
                for each in value if isinstance(value, tuple) else (value,):
                    words += [option, str(each)]
        return words


def _says(value: object) -> bool:
    return value is not None and value is not False and value != ()


_NONE: Final = Options()


def kept(home: Path) -> Options:
    """Return the options of the last start, as long as nobody has stopped the node.

    Raises:
        RefusedError: they cannot be read.
    """
    path = home / OPTIONS_FILE
    try:
        with path.open("rb") as file:
            return decoders.read_json(file.read(_OPTIONS_BYTES_MAX), Options)
    except FileNotFoundError:
        return Options()
    except (OSError, msgspec.DecodeError) as error:
        raise RefusedError(f"{path} cannot be read; `p2pq stop` forgets the options of the last start") from error


def start_again(home: Path, given: Options = _NONE, *, say: Callable[[str], None]) -> str:
    """Start a node with these options and those that still hold; ``say`` is told if there are such. Return its ``ready`` line.

    Raises:
        ConfigError: it did not start because of a setting.
        NodeUnreachableError: it did not start for another reason.
        RefusedError: the options that hold cannot be read.
    """
    holding = kept(home)
    argv = given.over(holding).argv()
    if holding != _NONE:
        say(f"no `p2pq stop` since the last start, so its options hold: {' '.join(argv)}")
    return start_node(home, argv)


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
