"""The program that makes calls of Python functions on other machines, for ``Executor(where="any")``.

It travels along in the folder ``p2pq-calls`` of the job, beside what it imports: nothing of p2pq need be installed where it runs.
What calls return goes back as data (``plain``), as whoever asked for them does not open pickles of other machines; the calls
themselves are pickles, of whom they belong to, and are opened in the sandbox.

Frames are those of ``calls``. The payload of RESULT is the value; of ERROR and NOT_BEGUN it is the tuple ``plain.FAILURE``; of
OTHER it is what cannot travel, as a text.
"""

import _pickle as pickle  # of whom the calls belong to, in the sandbox
import os
import sys

from p2pq.runner import calls, plain
from p2pq.runner.calls import ERROR, OTHER, RESULT, Answers, Calls, Order

TYPE_CHECKING = False  # see ``calls``
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, BinaryIO

TEXT_CHARS = 100_000
"""Of a traceback, so much travels: its end."""


def main() -> None:
    """Make the calls of this task."""
    folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    # What the program has sent along is found as it is beside a script.
    sys.path.insert(0, os.getcwd())
    with open(os.path.join(folder, "calls", os.environ["P2PQ_TASK"]), "rb") as source:
        _, results, printed = calls.divert(1)
        calls.work(source, results, printed, as_away)


def as_away(order: Order, source: "BinaryIO", answers: Answers) -> Calls:
    """Return what makes calls of a program on another machine."""
    sys.argv[:] = order.argv
    return Calls(order, source, answers, None if order.trusted else Plainly(order.types))


class Plainly:
    """Says what came of calls as data."""

    def __init__(self, types: "Iterable[bytes]") -> None:
        """Take the types that are registered, pickled one by one: what cannot be opened here, no call here returns."""
        self._registered: dict[type, tuple[str, Callable[[Any], object]]] = {}
        for each in types:
            try:
                kind, name, to_plain = pickle.loads(each)
            except Exception:  # noqa: BLE001, S112  its module is not here
                continue
            self._registered[kind] = (name, to_plain)

    def result(self, value: object) -> "tuple[int, bytes]":
        """Return what tells of a result."""
        try:
            return RESULT, plain.encode(value, self._registered)
        except plain.NotPlainError as error:
            return OTHER, plain.encode(str(error))

    def failure(self, error: BaseException) -> "tuple[int, bytes]":
        """Return what tells of an exception."""
        text = calls.traceback_of(error)[-TEXT_CHARS:]
        kind = type(error)
        missing = str(error.name) if isinstance(error, ModuleNotFoundError) and error.name else None
        made_with = self._made_with(error) if kind.__module__ == "builtins" else None
        return ERROR, plain.encode((plain.type_name(kind), made_with, calls.shown(error)[:TEXT_CHARS], text, missing))

    @staticmethod
    def _made_with(error: BaseException) -> "tuple[object, ...] | None":
        """Return the arguments that make an exception again, if they are data."""
        try:
            arguments = error.__reduce__()[1]
            plain.encode(arguments)
        except Exception:  # noqa: BLE001  then its text has to do
            return None
        return tuple(arguments)
