"""Calls that other machines make: each job is a folder that holds the calls, and what came back is data from anywhere."""

import builtins
import pickle  # noqa: TID251  results are opened so only if whoever calls trusts every machine that may make them
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import cloudpickle
import msgspec

from p2pq.client.asking import AnyPath
from p2pq.client.asynchronous import ask, last
from p2pq.client.grouping import Group
from p2pq.client.here import RemoteTraceback, raised
from p2pq.client.plain import decode
from p2pq.client.streams import AsyncConnection
from p2pq.errors import Reject, RemoteError, UntrustedResultError, UsageError
from p2pq.runner import away, calls, plain, plain_pandas
from p2pq.wire import names
from p2pq.wire.control import EVERYTHING, JobView, Submit

FOLDER: Final = "p2pq-calls"
MAIN: Final = f"{FOLDER}/main.py"
BOOT: Final = '''\
"""Makes calls; see p2pq/runner/away.py, which lies beside this."""

import os
import sys
import types


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        import p2pq.runner
    except ImportError:
        for name in ("p2pq", "p2pq.runner"):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = []
        sys.modules["p2pq"].runner = sys.modules["p2pq.runner"]
    # What came along is what these calls were written for, whatever is installed.
    sys.modules["p2pq.runner"].__path__.insert(0, os.path.join(here, "runner"))
    from p2pq.runner.away import main

    main()


main()
'''
BYTES_MAX: Final = 4 << 20
"""Every machine that runs a task of a job fetches all of its calls, so that no more of them are in one job."""
EXCEPTIONS: Final = frozenset(
    {
        *("ArithmeticError", "AssertionError", "AttributeError", "BlockingIOError", "BrokenPipeError", "BufferError"),
        *("ChildProcessError", "ConnectionAbortedError", "ConnectionError", "ConnectionRefusedError"),
        *(
            "ConnectionResetError",
            "EOFError",
            "Exception",
            "FileExistsError",
            "FileNotFoundError",
            "FloatingPointError",
        ),
        *("ImportError", "IndexError", "InterruptedError", "IsADirectoryError", "KeyError", "LookupError"),
        *("MemoryError", "ModuleNotFoundError", "NameError", "NotADirectoryError", "NotImplementedError", "OSError"),
        *("OverflowError", "PermissionError", "ProcessLookupError", "RecursionError", "ReferenceError", "RuntimeError"),
        *("SyntaxError", "TimeoutError", "TypeError", "UnboundLocalError", "UnicodeDecodeError", "UnicodeEncodeError"),
        *("UnicodeError", "UnicodeTranslateError", "ValueError", "ZeroDivisionError"),
    }
)
"""Exceptions that are made again by name. None of them ends a program that does not expect it, as SystemExit would."""
TASK_S: Final = 0.5
"""So much work goes into a task, if there is as much: it has a way to go."""


def request(where: str, common: Mapping[str, Any]) -> Submit:
    """Return what all jobs of calls at some place have in common."""
    return Submit(folder="/", main=MAIN, exclude=(EVERYTHING,), stays=True, where=where, **common)


class Away:
    """Submits calls for any machine of the mesh, and takes in what comes back."""

    jobs_max: Final = 32
    """Jobs that are under way at the same time: a node has 64 connections."""

    def __init__(self, request: Submit, files: Sequence[AnyPath], *, trusted: bool) -> None:
        """Take what all jobs have in common, what travels with them, and whether pickles that come back are opened.

        Raises:
            UsageError: a file is not there.
        """
        self._request = request
        self._files = [Path(path).absolute() for path in files]
        self._trusted = trusted
        for file in self._files:
            if not file.exists():
                raise UsageError(
                    f"{names.display(str(file))} is not there, so that it cannot be sent along; check files="
                )

    def jobs(self, groups: list[Group]) -> list[list[Group]]:
        """Return groups of calls as they are put into jobs."""
        found: list[list[Group]] = []
        room = 0
        for group in groups:
            size = sum(map(len, group.data))
            if not found or size > room:
                found.append([])
                room = BYTES_MAX
            found[-1].append(group)
            room -= size
        return found

    async def submit(self, node: AsyncConnection, groups: list[Group], check: Callable[[], None]) -> str:
        """Make a job of groups of calls; return its id.

        Raises:
            P2PQError: the node refuses, or ``check`` does.
        """
        folder = Path(tempfile.mkdtemp(prefix="p2pq-calls-"))
        try:
            self._fill(folder, groups)
            check()
            many = f"0-{len(groups) - 1}" if len(groups) > 1 else ""
            request = msgspec.structs.replace(self._request, folder=str(folder), array=many)
            return last(await ask(node, request, JobView), JobView).job
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _fill(self, folder: Path, groups: list[Group]) -> None:
        for file in self._files:
            try:
                if file.is_dir():
                    shutil.copytree(file, folder / file.name)
                else:
                    shutil.copy2(file, folder / file.name)
            except (OSError, shutil.Error) as error:
                raise UsageError(f"{names.display(str(file))} cannot be sent along: {error}") from error
        own = folder / FOLDER
        for part in ("runner", "calls"):
            (own / part).mkdir(parents=True)
        (folder / MAIN).write_text(BOOT)
        for module in (away, calls, plain, plain_pandas):
            shutil.copy(str(module.__file__), own / "runner")
        for source in sorted(Path(str(cloudpickle.__file__)).parent.glob("*.py")):
            (own / "cloudpickle").mkdir(exist_ok=True)
            shutil.copy(source, own / "cloudpickle")
        for number, group in enumerate(groups):
            with (own / "calls" / str(number)).open("wb") as order:
                order.writelines(group.data)

    def result(self, payload: memoryview, node: str) -> Any:  # noqa: ANN401  whatever the call returned
        """Return what a call returned.

        Raises:
            UntrustedResultError: it is no data.
            Exception: whatever a pickle of a trusted machine raises.
        """
        return pickle.loads(payload) if self._trusted else _data(payload, node)  # noqa: S301  see above

    def other(self, payload: memoryview, node: str) -> UntrustedResultError:
        """Return what says that a call returned something that does not travel."""
        what = names.display(str(_data(payload, node)))
        return UntrustedResultError(
            f"a call on {node} returned {what}, which does not travel as data: return plain types, arrays of numpy or "
            "data frames, p2pq.register() its type, or say Executor(trust_results=True) if you trust all machines that may run it"
        )

    def failure(self, payload: memoryview, node: str) -> BaseException:
        """Return what a call raised; of a type that is not known to be harmless, a ``RemoteError``."""
        if self._trusted:
            return raised(payload)
        told = _data(payload, node)
        if not isinstance(told, tuple) or len(told) != len(plain.FAILURE):
            return _nonsense(node, "an exception is malformed")
        kind, made_with, shown, text, missing = told
        error = _made_again(_clean(kind), made_with, _clean(shown), _clean(missing), node)
        error.__cause__ = RemoteTraceback(_clean(text))
        return error


def _data(payload: memoryview, node: str) -> Any:  # noqa: ANN401  any data
    try:
        return decode(payload)
    except Reject as reject:
        raise _nonsense(node, reject.reason) from reject


def _nonsense(node: str, reason: str) -> UntrustedResultError:
    return UntrustedResultError(f"{node} sent something that is no result ({reason}); ban it, or make the call again")


def _made_again(kind: str, made_with: object, shown: str, missing: str, node: str) -> Exception:
    if missing:
        missing = names.display(missing)
        module = missing.partition(".")[0]
        return ModuleNotFoundError(
            f"{node} has no module {missing!r}: install it there, keep to machines that have it (needs={{'has': {module!r}}}), "
            f"or send it along (files=['{module}.py'])",
            name=missing,
        )
    if kind in EXCEPTIONS and isinstance(made_with, tuple):
        with suppress(Exception):  # it is not made so
            made: Exception = getattr(builtins, kind)(*made_with)
            return made
    return RemoteError(f"a call on {node} raised {names.display(kind)}: {shown.partition(': ')[2] or shown}")


def _clean(text: object) -> str:
    """Return text that does nothing to a terminal, line by line."""
    if not isinstance(text, str):
        return ""
    return "\n".join(names.harmless(line) for line in text.split("\n"))
