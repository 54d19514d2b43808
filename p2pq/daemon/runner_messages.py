"""What a runner may say to its daemon. It is believed in nothing but what its own job's tasks came to, and bounded in all."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from p2pq import decoders
from p2pq.core.running import TRAIN_MAX
from p2pq.runner import main as runner_main

__all__ = [
    "TRAIN_MAX",
    "Clean",
    "Did",
    "Dirty",
    "End",
    "Exited",
    "Failed",
    "Gone",
    "Heard",
    "Ready",
    "Started",
    "Wake",
    "decode",
]

_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Pid = Annotated[int, Meta(ge=1, le=2**22)]
_Seconds = Annotated[float, Meta(ge=0.0, le=1e9)]
_Printed = Annotated[bytes, Meta(max_length=runner_main.PRINTED_MAX)]


class _FromRunner(msgspec.Struct, frozen=True, tag_field="op", forbid_unknown_fields=True):
    """What a runner may say."""


class Ready(_FromRunner, frozen=True, tag="ready"):
    """The runner serves."""


class Started(_FromRunner, frozen=True, tag="started"):
    """The task runs; ``pid`` counts in the sandbox's own namespace."""

    id: _Count
    pid: _Pid
    beside: Annotated[int, Meta(ge=0, le=2**22)] = 0
    """The process of the runner that has imported ahead; 0 if there is none."""


class Failed(_FromRunner, frozen=True, tag="failed"):
    """The command could not be executed."""

    id: _Count
    errno: Annotated[int, Meta(ge=0, le=4095)]


class Exited(_FromRunner, frozen=True, tag="exited"):
    """The task's first process ended."""

    id: _Count
    exit: Annotated[int, Meta(ge=0, le=255)] | None
    signal: Annotated[int, Meta(ge=1, le=64)] | None
    seconds: _Seconds
    max_rss: _Count
    utime: _Seconds
    stime: _Seconds


class Clean(_FromRunner, frozen=True, tag="clean"):
    """Nothing of the task is left."""

    id: _Count


class Dirty(_FromRunner, frozen=True, tag="dirty"):
    """Something of the task is left: the sandbox must go."""

    id: _Count
    why: Annotated[str, Meta(max_length=runner_main.TEXT_CHARS_MAX)]


class End(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How a task of a train ended; ``errno`` is not 0 where it could not be executed."""

    exit: Annotated[int, Meta(ge=0, le=255)]
    signal: Annotated[int, Meta(ge=0, le=64)]
    errno: Annotated[int, Meta(ge=0, le=4095)]
    seconds: _Seconds
    max_rss: _Count
    utime: _Seconds
    stime: _Seconds
    stdout: _Printed
    stderr: _Printed


class Did(_FromRunner, frozen=True, tag="did"):
    """Some more tasks of a train ended, in order."""

    id: _Count
    ends: Annotated[tuple[End, ...], Meta(max_length=TRAIN_MAX)]
    over: bool = False
    """No more of them begins."""
    pid: _Pid | None = None
    """The next one runs, and goes on by itself."""
    dirty: Annotated[str, Meta(max_length=runner_main.TEXT_CHARS_MAX)] = ""
    """Something of the last one is left: the sandbox must go."""
    large: bool = False
    """What the last one printed lies in its files, and what it left in its folder."""


class Gone(msgspec.Struct, frozen=True):
    """The runner ended or broke the protocol (not a message: the daemon's own finding)."""

    why: str


class Wake(msgspec.Struct, frozen=True):
    """Someone wants the attempt to end (not a message: the daemon's own)."""


FromRunner = Ready | Started | Failed | Exited | Did | Clean | Dirty
Heard = FromRunner | Gone | Wake
decode: Final = decoders.of_json(FromRunner).decode
"""Raises ``msgspec.MsgspecError`` where bytes are no such message."""
