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
GONE_S: Final = 1.0
"""For that long at most is waited for what was killed: the kernel may hold on to it for ever."""
STALE_S: Final = 30.0
"""What was said longer ago counts no more."""
OUTPUT_BYTES_MAX: Final = 4096


class LoadProbe:
    """Runs the command at most every ten seconds, and never two at once. Nobody waits for it: its last word counts."""

    def __init__(self, command: str, mono: Callable[[], Mono]) -> None:
        """Run nothing before it is asked."""
        self._command = command
        self._mono = mono
        self._looked: Mono | None = None
        self._told: Mono | None = None
        """When it said the load."""
        self._asking: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._load: float | None = None
        self._why = "[policy] load_probe has not answered yet"

    def look(self) -> None:
        """Set it going, if it is time and it does not run."""
        now = self._mono()
        if self._runs() or (self._looked is not None and now - self._looked < EVERY_S):
            return
        self._looked = now
        self._asking = asyncio.get_running_loop().create_task(self._ask(), name="load probe")

    def put_in(self, readings: Readings) -> Readings:
        """Return what the sensors say, with this for the load."""
        load, why = self._load, self._why
        if self._told is not None and self._mono() - self._told > STALE_S:
            load, why = None, why or f"[policy] load_probe has not answered for {STALE_S:g} s"
        absent = tuple(each for each in readings.absent if each[0] != "load")
        if why:
            absent = (*absent, ("load", why))
        return msgspec.structs.replace(readings, load=load, absent=absent)

    def close(self) -> None:
        """End what runs, without waiting for it."""
        if self._asking is not None:
            self._asking.cancel()
        self._kill()

    def _runs(self) -> bool:
        """Tell whether it runs, or cannot be killed."""
        return (self._asking is not None and not self._asking.done()) or (
            self._process is not None and self._process.returncode is None
        )

    async def _ask(self) -> None:
        """Run it once, and remember what it said."""
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
            self._told = self._mono()
            self._load, self._why = (
                (load, "") if math.isfinite(load) else (None, "[policy] load_probe printed no number")
            )
        if self._process is not None and self._process.returncode is None:
            self._kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GONE_S):
                    await self._process.wait()

    async def _run(self, argv: list[str]) -> bytes:
        """Return what it prints before it ends. What it started may go on, and keep its output open: that is not waited for."""
        if not argv:
            raise ValueError("empty")
        nothing = asyncio.subprocess.DEVNULL
        output, its = os.pipe()
        try:
            try:
                os.set_blocking(output, False)
                self._process = await asyncio.create_subprocess_exec(
                    *argv, stdin=nothing, stdout=its, stderr=nothing, start_new_session=True
                )
            finally:
                os.close(its)
            await self._process.wait()
            try:
                return os.read(output, OUTPUT_BYTES_MAX)
            except BlockingIOError:
                return b""  # it is silent, but a child of it might yet say something
        finally:
            os.close(output)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
