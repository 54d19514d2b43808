"""p2pq itself: a node in either sandbox level, and two nodes with half of its slots each."""

import contextlib
import shutil
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from benchmarks.nodes import Node, timed
from benchmarks.peers.contestant import TRUE, Driven, NotMeasuredError, Order, Sample
from benchmarks.peers.tools import check_joblog
from benchmarks.processes import family

SLOTS: Final = 2
Level = Literal["none", "strict"]
USAGE: Final = 2


class P2pq:
    """A node with two slots; ``nodes`` 2: two nodes in a mesh with one each, asked by one of them."""

    def __init__(self, level: Level, folder: Path, python: Path, nodes: int = 1) -> None:
        """Say how tasks run, and with which interpreter those that are scripts."""
        self.name = f"p2pq {level}" + (f", {nodes} nodes" if nodes > 1 else "")
        self.setting = ""
        self._level = level
        self._folder = folder
        self._nodes = [Node(folder / f"home{number}", "--slots", str(SLOTS // nodes)) for number in range(nodes)]
        for node in self._nodes:
            if python.exists():
                (node.home.path / "config.toml").write_text(f'config_version = 1\n[runner]\npython = "{python}"\n')
        self._batch = ("batch",)

    def __enter__(self) -> Self:
        """Start it and run something."""
        with contextlib.ExitStack() as stack:
            for node in self._nodes:
                stack.enter_context(node)
            first, *others = self._nodes
            for other in others:
                other.join(first)
            environment = {**first.environment(), "PEER_SANDBOX": self._level}
            driver = Driven(self.name, "p2pq", Path(sys.executable), self._folder / "driver", environment)
            self._driver = stack.enter_context(driver)
            if self._level == "strict":
                self._way = self._strict_batch()
                if not self._way and first.sandbox != "strict":
                    raise NotMeasuredError(f"the sandbox here is {first.sandbox}; see p2pq doctor")
            else:
                self._way = ("batch",)
            words = "p2pq " + (" ".join(self._way) if self._way else "submit --array of an executable main")
            self.setting = f"{words}, p2pq submit --array of scripts, {driver.setting}; durable"
            self.measure(Order(work="commands", count=20))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._stack.__exit__(kind, error, trace)

    def pids(self) -> list[int]:
        """Return the nodes with their runners, and the client, as of other contestants."""
        return [*(pid for node in self._nodes for pid in family(node.pid)), *self._driver.pids()]

    def measure(self, order: Order) -> Sample:
        """Measure it, through the commands or the driver."""
        if len(self._nodes) > 1 and order.work not in ("commands", "numpy"):
            raise NotMeasuredError("only what tells the price of the network")
        try:
            if order.argvs:
                return self._scripts(order)
            match order.work:
                case "commands":
                    return Sample(seconds=(self._commands(order.count),))
                case "cli":
                    words = (
                        ("run", "--", "true") if self._level == "none" else ("submit", "--quiet", self._executable())
                    )
                    node = self._nodes[0]
                    return Sample(seconds=tuple(timed(lambda: node.command(*words)) for _ in range(order.count)))
                case _:
                    return self._driver.measure(order)
        except RuntimeError as error:
            raise NotMeasuredError(str(error)[:200]) from error

    def _strict_batch(self) -> tuple[str, ...]:
        """Return how `p2pq batch` is told to use the sandbox; nothing where it cannot."""
        lines = self._folder / "one"
        lines.write_text(f"{TRUE}\n")
        for words in (("batch", "--sandbox", "strict"), ("batch", "--where", "any")):
            with contextlib.suppress(RuntimeError):
                self._nodes[0].command(*words, "--quiet", str(lines))
                return words
        return ()

    def _commands(self, count: int) -> float:
        node = self._nodes[0]
        if self._way:
            lines, log = self._folder / "lines", self._folder / "log"
            lines.write_text(f"{TRUE}\n" * count)
            words = (*self._way, "--quiet", "--retries", "0", "--joblog", str(log), str(lines))

            def work() -> None:
                node.command(*words)
                check_joblog(log, count)
        else:
            words = ("submit", "--quiet", "--retries", "0", "--array", f"0-{count - 1}", self._executable())

            def work() -> None:
                node.command(*words)  # exit code 0: every task succeeded

        return timed(work)

    def _scripts(self, order: Order) -> Sample:
        assert order.folder is not None
        first, *_, last = order.argvs
        array = f"{first[-1]}-{last[-1]}"
        where = ("--sandbox", "none", "--where", "local") if self._level == "none" else ("--sandbox", "strict")
        node = self._nodes[0]
        # The folder is new each time, so that results of the last time need not be moved aside.
        folder = self._folder / "scripts"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(order.folder, folder)
        printed = ""

        def work() -> None:
            nonlocal printed
            job = node.command("submit", "--detach", *where, "--array", array, "--retries", "0", str(folder), "{task}")
            node.command("wait", "--quiet", job.strip())
            printed = node.command("logs", job.strip())

        took = timed(work)
        return Sample(seconds=(took,), outputs=tuple(printed.splitlines(keepends=True)))

    def _executable(self) -> str:
        folder = self._folder / "executable"
        if not folder.exists():
            folder.mkdir()
            shutil.copy(TRUE, folder / "main")
        return str(folder)
