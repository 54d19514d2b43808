"""The program that makes calls of Python functions for ``p2pq.Executor``: a task of the caller's own, in its own environment.

Standard input holds what to call, standard output what came of it; whatever the calls themselves print on standard output is
kept apart and passed on at the end. Both ends are the same user's, on one machine, and run the same code: so pickles are safe
here, and nowhere else. Imports as little as it can, as it is started many times a second.

Input: the length of the head in eight bytes, the head, a pickle of ``Order``; then the arguments of each call, pickled.
Output: frames of ``FRAME`` and a payload: for each call, in order, RESULT or ERROR (or, where results are data, OTHER, see
``away``); PRINTED; and END, after which nothing comes.
Without END something has ended the process. Calls of which nothing is said were not made, as time was up.
"""

import _pickle as pickle  # of this user, for this user; the module around it imports ``re``, which takes longer than all of this
import os
import struct
import sys
import time

TYPE_CHECKING = False  # importing typing for real would cost 2 ms at every start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, BinaryIO, Protocol

    class Says(Protocol):
        """Puts what came of a call into words: which kind of frame it is, and its payload."""

        def result(self, value: object) -> tuple[int, bytes]:
            """Of what it returned."""

        def failure(self, error: BaseException) -> tuple[int, bytes]:
            """Of what it raised."""


PROTOCOL = 5
LENGTH_BYTES = 8
FRAME = struct.Struct("<BdQ")
"""What it is, how many seconds it took, and how many bytes follow."""
RESULT, ERROR, PRINTED, END, NOT_BEGUN, OTHER = range(6)
FLUSH_S = 0.02
FLUSH_BYTES = 1 << 20
MAIN = b"__main__"

BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from p2pq.runner.calls import main; main()"
"""The whole ``__main__`` of the task: the caller's own is another program, whose functions travel by value."""


class Order:
    """What a task is to do, besides the arguments."""

    __slots__ = ("argv", "begin", "budget_s", "calls", "functions", "path", "trusted", "types")

    def __init__(  # noqa: PLR0913  all that there is to say
        self,
        path: "list[str]",
        argv: "list[str]",
        budget_s: float,
        begin: bytes,
        functions: "list[bytes]",
        calls: "list[tuple[int, int]]",
        *,
        trusted: bool = True,
        types: "Sequence[bytes]" = (),
    ) -> None:
        """Take the caller's ``sys.path`` and ``sys.argv``; what to call first, pickled, or nothing; and the calls.

        ``calls`` are numbers of ``functions`` with the lengths of their arguments. No call is begun after ``budget_s``, but
        the first one is made in any case. What comes back of them is opened if ``trusted``; else it has to be data, for
        which registered ``types`` say how they become such.
        """
        self.path = path
        self.argv = argv
        self.budget_s = budget_s
        self.begin = begin
        self.functions = functions
        self.calls = calls
        self.trusted = trusted
        self.types = types


def pickled(thing: object) -> bytes:
    """Return a pickle that any process with the same modules can open: what is of ``__main__``, or has no name, goes by value.

    Raises:
        Exception: whatever an object raises that cannot be pickled.
    """
    try:
        data = pickle.dumps(thing, PROTOCOL)
    except Exception:  # noqa: BLE001  the other way may do, and says itself why it does not
        data = MAIN
    if MAIN not in data and not _by_value():
        return data
    import cloudpickle  # noqa: PLC0415  it takes a while, and is seldom needed in a task

    return cloudpickle.dumps(thing, PROTOCOL)  # type: ignore[no-any-return]


def _by_value() -> bool:
    """Whether somebody has asked cloudpickle to take modules along; it is here already, if so."""
    found = sys.modules.get("cloudpickle")
    return found is not None and bool(found.list_registry_pickle_by_value())


def run_chunk(function: "Callable[..., Any]", chunk: "Iterable[tuple[Any, ...]]") -> "list[Any]":
    """Make several calls as one, as ``map`` wants them with ``chunksize``."""
    return [function(*args) for args in chunk]


def run_items(items: "Iterable[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]") -> "list[Any]":
    """Make several calls as one, as joblib puts them together."""
    return [function(*args, **kwargs) for function, args, kwargs in items]


def frames(data: "bytes | bytearray") -> "Iterator[tuple[int, float, memoryview]]":
    """Yield what a task has written; a frame that was not written to its end is none."""
    at, whole = 0, memoryview(data)
    while at + FRAME.size <= len(data):
        kind, seconds, size = FRAME.unpack_from(data, at)
        at += FRAME.size
        if at + size > len(data):
            return
        yield kind, seconds, whole[at : at + size]
        at += size


class Answers:
    """Frames on their way out: together when they come fast, and none later than the next call that takes long."""

    def __init__(self, fd: int) -> None:
        """Write there."""
        self._fd = fd
        self._held: list[bytes] = []
        self._bytes = 0
        self._flushed = time.perf_counter()

    def add(self, kind: int, payload: bytes = b"", seconds: float = 0.0) -> None:
        """Send a frame, soon."""
        self._held += (FRAME.pack(kind, seconds, len(payload)), payload)
        self._bytes += len(payload)

    def flush_if_due(self, now: float) -> None:
        """Write what was held long enough."""
        if now - self._flushed >= FLUSH_S or self._bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        left = memoryview(b"".join(self._held))
        while left:
            left = left[os.write(self._fd, left) :]
        self._held.clear()
        self._bytes = 0
        self._flushed = time.perf_counter()


def traceback_of(error: BaseException) -> str:
    """Return where an exception came about, and what it is, as text; where that fails, what is left of it."""
    import traceback  # noqa: PLC0415  seldom needed

    trace = error.__traceback__
    if trace is not None and trace.tb_next is not None:
        trace = trace.tb_next  # whatever made the call says nothing
    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except Exception:  # noqa: BLE001  its own ``__str__`` may be what fails
        return "".join(traceback.format_tb(trace)) + shown(error)


def shown(error: BaseException) -> str:
    """Return an exception as one line of text, whatever its own ``__str__`` does."""
    try:
        return f"{type(error).__qualname__}: {error}"
    except Exception:  # noqa: BLE001  it does not do
        return type(error).__qualname__


class Pickled:
    """Says what came of calls as pickles."""

    def result(self, value: object) -> "tuple[int, bytes]":
        """Return what tells of a result.

        Raises:
            Exception: whatever an object raises that cannot be pickled.
        """
        return RESULT, pickled(value)

    def failure(self, error: BaseException) -> "tuple[int, bytes]":
        """Return what tells of an exception: itself, and its traceback as text."""
        text = traceback_of(error)
        try:
            data = pickled((error, text))
            pickle.loads(data)
        except BaseException as why:  # noqa: BLE001  whatever it is, the text is still there
            said = f"{shown(error)} (the exception itself cannot travel: {shown(why)})"
            data = pickle.dumps((RuntimeError(said), text), PROTOCOL)
        return ERROR, data


class Calls:
    """The calls of one task."""

    def __init__(self, order: Order, source: "BinaryIO", answers: Answers, says: "Says | None" = None) -> None:
        """Take what to do, where the arguments come from, where results go, and what puts them into words."""
        self._order = order
        self._source = source
        self._answers = answers
        self._says = says or Pickled()
        self._functions: dict[int, Callable[..., Any]] = {}

    def begin(self) -> bool:
        """Call what is to be called first; return whether that went well."""
        if self._order.begin:
            try:
                initializer, args = pickle.loads(self._order.begin)
                initializer(*args)
            except BaseException as error:  # noqa: BLE001  told to the caller
                self._answers.add(NOT_BEGUN, self._says.failure(error)[1])
                return False
        return True

    def make(self) -> None:
        """Make calls until all are made or time is up."""
        clock = time.perf_counter
        began = before = clock()
        for number, size in self._order.calls:
            if number not in self._functions:
                self._load(number)
                before = clock()  # what is imported with it is imported once, and says nothing of the calls
            kind, payload = self._one(self._functions[number], self._source.read(size))
            now = clock()
            self._answers.add(kind, payload, now - before)
            self._answers.flush_if_due(now)
            if now - began > self._order.budget_s:
                return
            before = now

    def _load(self, number: int) -> None:
        try:
            self._functions[number] = pickle.loads(self._order.functions[number])
        except BaseException as error:  # noqa: BLE001  each of its calls raises it
            raised = error

            def fail(*_: object, **__: object) -> None:
                raise raised

            self._functions[number] = fail

    def _one(self, function: "Callable[..., Any]", arguments: bytes) -> "tuple[int, bytes]":
        try:
            args, kwargs = pickle.loads(arguments)
            return self._says.result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  told to the caller, even SystemExit
            return self._says.failure(error)


def unnamed_file() -> int:
    """Return a new file without a name: in memory, or where a sandbox does not let it be there, among temporary files.

    Raises:
        OSError: there can be none.
    """
    try:
        return os.memfd_create("printed")
    except OSError:
        name = os.path.join(os.environ.get("TMPDIR", "/tmp"), f".p2pq-printed-{os.getpid()}")  # noqa: S108  where there is no other
        found = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.unlink(name)
        return found


def divert(out: int) -> "tuple[BinaryIO, int, int]":
    """Take standard input and output away from the calls: they read nothing, and what they print is kept aside.

    Returns:
        what was standard input, what was standard output, and where printed things are.
    """
    source = os.fdopen(os.dup(0), "rb")
    results = os.dup(out)
    printed = unnamed_file()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(printed, out)
    os.close(nothing)
    return source, results, printed


def work(source: "BinaryIO", results: int, printed: int, made: "Callable[[Order, BinaryIO, Answers], Calls]") -> None:
    """Make the calls that are asked for.

    Args:
        source: what is asked.
        results: where what comes of them goes.
        printed: where what they print is.
        made: takes the order, the rest of ``source``, and where to answer.
    """
    order = pickle.loads(source.read(int.from_bytes(source.read(LENGTH_BYTES), "little")))
    answers = Answers(results)
    calls = made(order, source, answers)
    if calls.begin():
        calls.make()
    if sys.stdout is not None:
        sys.stdout.flush()
    size = os.fstat(printed).st_size
    if size:
        answers.add(PRINTED, os.pread(printed, size, 0))
    answers.add(END)
    answers.flush()


def as_here(order: Order, source: "BinaryIO", answers: Answers) -> Calls:
    """Return what makes calls of a program on the same machine, with the same modules."""
    sys.path[:], sys.argv[:] = order.path, order.argv
    return Calls(order, source, answers)


def main() -> None:
    """Make the calls."""
    work(*divert(1), as_here)
