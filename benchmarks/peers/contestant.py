"""What can be measured, and by whom: a contestant is p2pq or a peer, used in one way."""

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

import msgspec
import psutil

DRIVERS: Final = Path(__file__).parents[1] / "drivers"
START_S: Final = 120.0
LIMIT_S: Final = 600.0
"""Whoever needs longer for one measurement is not measured."""
END_S: Final = 60.0
TRUE: Final = "/bin/true"
LACKS: Final = {"cli": "no command that runs one task and waits"}
"""Words for what drivers do not speak of."""


class NotMeasuredError(Exception):
    """Why something is not measured here, in a few words for the table."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be measured."""

    work: str
    """A name of ``workloads.WORKS``."""
    count: int
    argvs: tuple[tuple[str, ...], ...] = ()
    """Of the works that run scripts: what to run from a shell; the last word is the task's number."""
    folder: Path | None = None
    """Where such a script lies, as ``main.py``, alone."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement."""

    seconds: tuple[float, ...]
    """Of all together, or of each where each was measured alone."""
    outputs: tuple[str, ...] = ()
    """Of scripts: a line each, in any order."""


class Contestant(Protocol):
    """A context manager that is ready while it is entered."""

    name: str
    setting: str
    """How it is used, once it is entered."""

    def __enter__(self) -> Self:
        """Start it and warm it up.

        Raises:
            NotMeasuredError: it is not installed, or does not start.
        """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, with all its processes."""

    def measure(self, order: Order) -> Sample:
        """Do some work.

        Raises:
            NotMeasuredError: it does not do this, or did it wrong.
        """

    def pids(self) -> list[int]:
        """Return its processes that are there when it has nothing to do."""


class Driven:
    """A program of ``benchmarks/drivers`` and all its processes, spoken to in lines of JSON."""

    def __init__(self, name: str, driver: str, python: Path, folder: Path, environment: Mapping[str, str]) -> None:
        """Name a driver and the interpreter that has what it needs."""
        self.name = name
        self.setting = ""
        self._argv = [str(python), str(DRIVERS / "serve.py"), driver, str(folder)]
        self._folder = folder
        self._environment = environment
        self._works: list[str] = []
        self._lacks: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log = (self._folder / "driver.log").open("wb")
        try:
            self._process = subprocess.Popen(
                self._argv, cwd=self._folder, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._log,
            )  # fmt: skip
        except OSError as error:
            self._log.close()
            raise NotMeasuredError(f"no interpreter: {error.strerror}") from error
        try:
            hello = self._answer(START_S)
            self._works, self._lacks, self.setting = hello["works"], hello["lacks"], hello["setting"]
            for work in ("commands", "calls"):
                if work in self._works:
                    self._ask({"work": work, "argv": [TRUE], "count": 20})
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        started = _processes(self._process.pid)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def measure(self, order: Order) -> Sample:
        """Have the driver measure it."""
        request: dict[str, Any] = {"work": order.work, "count": order.count, "argv": [TRUE]}
        if order.argvs:
            request |= {"work": "outputs", "argvs": order.argvs}
        able = "commands" if order.work == "latency" else request["work"]
        if able not in self._works:
            raise NotMeasuredError(self._lacks.get(able, LACKS.get(able, "it does not do that")))
        answer = self._ask(request)
        if answer["good"] != order.count:
            raise NotMeasuredError(f"only {answer['good']} of {order.count} came back as they should")
        return Sample(seconds=tuple(answer["seconds"]), outputs=tuple(answer.get("outputs", ())))

    def pids(self) -> list[int]:
        """Return the driver, which is the client, and all below it."""
        return [process.pid for process in _processes(self._process.pid)]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise NotMeasuredError(f"it has ended: {self._last_words()}") from error
        return self._answer(LIMIT_S)

    def _answer(self, limit_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + limit_s
        line = b""
        while not line.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise NotMeasuredError(f"not done within {limit_s:.0f} s")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise NotMeasuredError(f"it has ended: {self._last_words()}")
            line += part
        answer = json.loads(line)
        if "missing" in answer:
            raise NotMeasuredError(f"not installed: {answer['missing']}")
        if "error" in answer:
            raise NotMeasuredError(str(answer["error"])[:200])
        return answer

    def _last_words(self) -> str:
        words = (self._folder / "driver.log").read_text(errors="replace").split("\n")
        return next((word.strip() for word in reversed(words) if word.strip()), "it said nothing")[:200]


def _processes(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
