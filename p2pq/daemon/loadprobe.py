"""A command of the user's own that tells how busy this machine is: run now and then, its first word is the load."""

import asyncio
import contextlib
import math
import os
import shlex
import signal
from collections.abc import Callable
from typing import Final

import msgspec

from p2pq.model.ids import Mono
from p2pq.model.owner import Readings

EVERY_S: Final = 10.0
PATIENCE_S: Final = 5.0
"""A command that takes longer is killed, and tells nothing."""
OUTPUT_BYTES_MAX: Final = 4096


class LoadProbe:
    """Runs the command at most every ten seconds, and never two at once."""

    def __init__(self, command: str, mono: Callable[[], Mono]) -> None:
        """Run nothing before it is asked."""
        self._command = command
        self._mono = mono
        self._looked: Mono | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._load: float | None = None
        self._why = "[policy] load_probe has not answered yet"

    async def look(self) -> None:
        """Run it, if it is time, and remember what it said."""
        now = self._mono()
        if self._looked is not None and now - self._looked < EVERY_S:
            return
        self._looked = now
        try:
            async with asyncio.timeout(PATIENCE_S):
                said = await self._run(shlex.split(self._command))
            load = float(said.split(maxsplit=1)[0])
        except TimeoutError:
            self._load, self._why = None, f"[policy] load_probe did not end within {PATIENCE_S:g} s"
        except OSError as error:
            self._load, self._why = None, f"[policy] load_probe cannot be run: {error.strerror}"
        except (ValueError, IndexError):
            self._load, self._why = None, "[policy] load_probe printed no number"
        else:
            self._load, self._why = (
                (load, "") if math.isfinite(load) else (None, "[policy] load_probe printed no number")
            )

    def put_in(self, readings: Readings) -> Readings:
        """Return what the sensors say, with this for the load."""
        absent = tuple(each for each in readings.absent if each[0] != "load")
        if self._why:
            absent = (*absent, ("load", self._why))
        return msgspec.structs.replace(readings, load=self._load, absent=absent)

    def close(self) -> None:
        """End what runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _run(self, argv: list[str]) -> bytes:
        if not argv:
            raise ValueError("empty")
        nothing = asyncio.subprocess.DEVNULL
        self._process = process = await asyncio.create_subprocess_exec(
            *argv, stdin=nothing, stdout=asyncio.subprocess.PIPE, stderr=nothing, start_new_session=True
        )
        assert process.stdout is not None, "piped"  # noqa: S101
        try:
            said = await process.stdout.read(OUTPUT_BYTES_MAX)
            await process.wait()
        finally:
            self.close()
            await process.wait()
        return said
