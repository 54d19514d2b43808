"""Sessions of tasks that are to run behind everything else, where the kernel groups processes by session (autogroup, sched(7)).

There each session competes with others as a whole, and priorities, the idle class among them, count inside of one only: tasks
that want all of a core would get as much of it as whoever sits at the machine. So their sessions are given the least weight. A
task may begin further ones, or raise its own again, so this is repeated for as long as it runs. What keeps others from looking
into it (not dumpable, prctl(2)) is out of reach for a daemon that is not root's.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

SWITCH: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
LEAST: Final = b"19"
"""As a nice value."""
_READ_BYTES: Final = 64


def enabled() -> bool:
    """Whether this kernel groups processes by session."""
    try:
        return SWITCH.read_text(encoding="ascii").strip() == "1"
    except OSError:
        return False


def lower(pids: Iterable[int], proc: str = "/proc") -> None:
    """Give the sessions of these processes the least weight; what the kernel refuses just now is done by a later call.

    It lets the users of a machine do that ten times a second, together.
    """
    for pid in pids:
        # A process may have ended, or be no longer dumpable.
        with contextlib.suppress(OSError), open(f"{proc}/{pid}/autogroup", "r+b", buffering=0) as file:  # noqa: PTH123  in a hot loop
            if file.read(_READ_BYTES).split()[-1:] != [LEAST]:
                file.write(LEAST)
