"""Which gpus there are, and which of them a task may use: each belongs to one task at a time.

That is said by variables, which every library for gpus follows; in a sandbox the device files of others are not there either.
"""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from p2pq.daemon.sandbox import Mount
from p2pq.errors import RefusedError

GPUS_MAX: Final = 64
"""As many as a task may ask for."""
ASK_S: Final = 10.0
VARIABLES: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_COMMON: Final = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
"""Device files that every program for gpus opens, whichever it uses."""


def find(wanted: int | None, devices: Path = Path("/dev")) -> tuple[int, ...]:
    """Return the numbers of the gpus to offer.

    Args:
        wanted: how many; None: those that there are, by their device files, or by what ``nvidia-smi`` says.
        devices: where device files lie.
    """
    if wanted is not None:
        return tuple(range(min(wanted, GPUS_MAX)))
    names = (re.fullmatch(r"nvidia(\d+)", path.name) for path in devices.glob("nvidia*"))
    found = sorted(int(name[1]) for name in names if name) or range(_told())
    return tuple(found)[:GPUS_MAX]


def _told() -> int:
    """Ask the driver's own program, where there is one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        done = subprocess.run(
            [program, "-L"], capture_output=True, text=True, errors="replace", timeout=ASK_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


def variables(gpus: Sequence[int]) -> dict[str, str]:
    """Return the variables that let a task see these gpus, and none where there are none."""
    return dict.fromkeys(VARIABLES, ",".join(map(str, gpus)))


def mounts(gpus: Sequence[int], devices: Path = Path("/dev")) -> tuple[Mount, ...]:
    """Return the device files that a sandboxed task with these gpus is to have, as far as they are there."""
    names = [f"nvidia{gpu}" for gpu in gpus] + (list(_COMMON) if gpus else [])
    found = [devices / name for name in names if (devices / name).exists()]
    return tuple(Mount(path, os.path.join("/dev", path.name), device=True) for path in found)  # noqa: PTH118


class Gpus:
    """The gpus of this machine, and who has them. Use it from the event loop's thread only."""

    def __init__(self, gpus: Sequence[int] = ()) -> None:
        """Take the numbers of those that are offered."""
        self._all = len(gpus)
        self._free = sorted(gpus)
        self._given_back = asyncio.Event()

    @asynccontextmanager
    async def assigned(self, count: int) -> AsyncIterator[tuple[int, ...]]:
        """Give so many to a task, until this is left.

        Who decides what runs here counts them as well; this waits only for a task that is just being killed.

        Raises:
            RefusedError: there are not so many.
        """
        if count > self._all:
            raise RefusedError(f"this node has {self._all} gpus, and the task asks for {count}")
        while len(self._free) < count:
            await self._given_back.wait()
        taken, self._free = tuple(self._free[:count]), self._free[count:]
        try:
            yield taken
        finally:
            self._free = sorted((*self._free, *taken))
            self._given_back.set()  # wakes all who wait, each of whom looks
            self._given_back.clear()
