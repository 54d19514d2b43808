"""Calls of other machines: folders go out, and what comes back is believed in nothing."""

import pickle  # noqa: TID251  to send what must not be opened
import stat
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest

from p2pq import Executor
from p2pq.client.away import Away
from p2pq.client.grouping import Call, Group
from p2pq.errors import Reject, RemoteError, UntrustedResultError, UsageError
from p2pq.model.job import Resources
from p2pq.runner import calls
from p2pq.runner.plain import encode
from p2pq.wire import control
from p2pq.wire.commandcontrol import Ends, TaskEnded
from p2pq.wire.control import LogChunk, PeerView
from tests.unit.client.callskit import square, status_view
from tests.unit.client.nodekit import Node, job_view

IN_TIME_S = 60.0
UNTRUSTED = Away(None, (), trusted=False)


def failed(*told):
    return UNTRUSTED.failure(memoryview(encode(told)), "bob")


def test_builtin_exceptions_are_made_again():
    error = failed("FileNotFoundError", (2, "no", "/x"), "shown", "Traceback\n\x1b[2Jend", None)
    assert (type(error), error.filename) == (FileNotFoundError, "/x")
    assert str(error.__cause__) == '\n"""\nTraceback\n\ufffd[2Jend"""'


@pytest.mark.parametrize(
    "kind", ["SystemExit", "KeyboardInterrupt", "eval", "StopIteration", "os.system", "own.OwnError", 3]
)
def test_others_are_told_of(kind):
    error = failed(kind, ("x",), f"{kind}: x\x07", "", None)
    assert type(error) is RemoteError
    assert str(error) == f"a call on bob raised {kind if kind != 3 else ''}: x\ufffd"


@pytest.mark.parametrize("made_with", [None, "x", ("x",), ({},) * 7])
def test_a_builtin_that_is_not_made_so_is_told_of(made_with):
    error = failed("UnicodeDecodeError", made_with, "UnicodeDecodeError: x", "", None)
    assert (type(error), str(error)) == (RemoteError, "a call on bob raised UnicodeDecodeError: x")


def test_what_is_missing_is_named_with_where_and_what_to_do():
    error = failed("ModuleNotFoundError", ("no",), "", "", "scipy.stats")
    assert (type(error), error.name) == (ModuleNotFoundError, "scipy.stats")
    assert str(error) == (
        "bob has no module 'scipy.stats': install it there, keep to machines that have it (needs={'has': 'scipy'}), "
        "or send it along (files=['scipy.py'])"
    )


class Trap:
    opened = 0

    def __reduce__(self):
        return (setattr, (Trap, "opened", 1))


@pytest.mark.parametrize("data", [b"", b"\xc1", pickle.dumps(Trap()), encode(3) + b"x", encode(("ValueError", 1))])
def test_nonsense_is_named_and_not_opened(data):
    error = UNTRUSTED.failure(memoryview(data), "bob") if data == encode(("ValueError", 1)) else None
    for call in (UNTRUSTED.result, UNTRUSTED.other, UNTRUSTED.failure) if error is None else ():
        with pytest.raises(UntrustedResultError, match="bob sent something that is no result") as caught:
            call(memoryview(data), "bob")
        assert isinstance(caught.value.__cause__, Reject)
    assert error is None or "an exception is malformed" in str(error)
    assert Trap.opened == 0


def test_what_does_not_travel_is_named_with_what_to_do():
    error = UNTRUSTED.other(memoryview(encode("a value of type x.Y")), "bob")
    assert type(error) is UntrustedResultError
    assert str(error) == (
        "a call on bob returned a value of type x.Y, which does not travel as data: return plain types, arrays of numpy or data "
        "frames, p2pq.register() its type, or say Executor(trust_results=True) if you trust all machines that may run it"
    )


def test_trusted_machines_send_pickles():
    trusting = Away(None, (), trusted=True)
    assert trusting.result(memoryview(calls.pickled({1})), "bob") == {1}
    _, data = calls.Pickled().failure(KeyError(3))
    assert repr(trusting.failure(memoryview(data), "bob")) == "KeyError(3)"


def test_large_calls_are_jobs_of_their_own():
    sizes = (1 << 20, 3 << 20, 1, 9 << 20, 1, 1)
    groups = [Group([], [bytes(size)]) for size in sizes]
    found = UNTRUSTED.jobs(groups)
    assert [[len(group.data[0]) for group in job] for job in found] == [[1 << 20, 3 << 20], [1], [9 << 20], [1, 1]]


class AwayNode(Node):
    """Looks at what is submitted, and answers calls as it is told."""

    def __init__(self, home):
        super().__init__(home)
        self.seen = {}
        self.frames = b""
        peer = {"id": "x", "address": "", "state": "up", "slots": 5}
        self.answers = {
            control.Status: [status_view(2)],
            control.PeersList: [PeerView(name="bob", **peer), PeerView(name="eve", **{**peer, "state": "down"})],
            control.Submit: self._submit,
            Ends: self._run,
            control.CancelJob: [job_view("cancelled")],
        }

    def _submit(self, request):
        self.request = request
        folder = Path(request.folder)
        self.seen = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
        self.mode = stat.S_IMODE(folder.stat().st_mode)
        return [job_view(job="job0")]

    def _run(self, _request):
        yield LogChunk(task=0, data=self.frames)
        yield TaskEnded(task=0, state="done", exit=0, reason="ok", seconds=0.1, node="bob")


def frame(kind, payload=b"", seconds=0.1):
    return calls.FRAME.pack(kind, seconds, len(payload)) + payload


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    monkeypatch.chdir(tmp_path)
    with AwayNode(tmp_path / "home") as found:
        yield found


def test_calls_travel_in_a_folder_with_what_makes_them(node, tmp_path):
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("")
    node.frames = frame(calls.RESULT, encode(9)) + frame(calls.END)
    options = {"cpus": 2, "needs": {"has": "numpy"}, "priority": 3, "name": "mine", "time_s": 9}
    with Executor(home=node.home, where="any", files=["beside.py", "data"], **options) as pool:
        assert pool.submit(square, 3).result(IN_TIME_S) == 9
    assert node.seen >= {
        "beside.py", "data/x", "p2pq-calls/main.py", "p2pq-calls/calls/0", "p2pq-calls/cloudpickle/__init__.py",
        *(f"p2pq-calls/runner/{name}.py" for name in ("away", "calls", "plain", "plain_pandas")),
    }  # fmt: skip
    assert node.mode == 0o700
    asked = node.request
    assert (asked.main, asked.where, asked.stays, asked.exclude) == ("p2pq-calls/main.py", "any", True, ("!*",))
    assert (asked.name, asked.priority, asked.time_s, asked.array) == ("mine", 3, 9, "")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert asked.resources == Resources(cpus=2, needs=(("has", "numpy"), ("python", version)))
    assert not Path(asked.folder).exists()


@pytest.mark.parametrize(("where", "workers"), [("any", 7), ("bob", 5), ("n", 2), ("nobody", 1)])
def test_there_are_as_many_processes_as_the_machines_have_slots(node, where, workers):
    with Executor(home=node.home, where=where) as pool:
        assert pool._max_workers == workers


@pytest.mark.parametrize(
    "frames",
    [
        b"",
        b"nonsense",
        frame(calls.END),
        frame(99, b"x"),
        frame(calls.RESULT, encode(1))[:-1],
    ],
)
def test_a_node_that_tells_nothing_breaks_the_executor(node, frames):
    node.frames = frames
    with Executor(home=node.home, where="any") as pool, pytest.raises(Exception, match="make another Executor"):
        pool.submit(square, 3).result(IN_TIME_S)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -5.0, 1e300])
def test_durations_are_not_believed(node, seconds):
    node.frames = frame(calls.RESULT, encode(9), seconds) * 2 + frame(calls.END, seconds=seconds)
    with Executor(home=node.home, where="any") as pool:
        assert pool.submit(square, 3).result(IN_TIME_S) == 9
        assert pool._caller._groups.pace.of(a_call()) in (0.0, None)


def a_call():
    return Call(Future(), square, (3,), {})


def test_what_is_not_there_cannot_be_sent_along(node):
    with pytest.raises(UsageError, match=r"nothing\.py is not there"):
        Executor(home=node.home, where="any", files=["nothing.py"])
