"""A node that makes calls as a real one would, without being one; and what there is to call."""

import os
import subprocess
import threading
import time

from p2pq.runner import calls
from p2pq.wire import control
from p2pq.wire.commandcontrol import Ends, KeepInput, SubmitCommands, TaskEnded
from p2pq.wire.control import LogChunk, StatusView
from p2pq.wire.parts import PolicyView
from tests.unit.client.nodekit import Node, job_view


def status_view(slots=2):
    return StatusView(
        id="abc", name="n", mesh="m", version="1", address="", slots=slots, free=slots,
        policy=PolicyView(state="run"), running=(), peers=0, queued=0, sandbox="strict",
    )  # fmt: skip


class CallsNode(Node):
    """Runs the tasks of each job one after the other."""

    def __init__(self, home, slots=2):
        super().__init__(home)
        self._kept = {}
        self._jobs = {}
        self.gate = threading.Event()
        """Nothing is run until it is set."""
        self.gate.set()
        self.doctor = lambda _task, ended: ended
        """Changes how tasks end."""
        self.answers = {
            control.Status: [status_view(slots)],
            KeepInput: self._keep,
            SubmitCommands: self._submit,
            Ends: self._run,
            control.CancelJob: [job_view("cancelled")],
        }

    @property
    def submitted(self):
        return [request for request in self.heard if isinstance(request, SubmitCommands)]

    def _keep(self, request):
        self._kept[request.upload] = self._kept.get(request.upload, b"") + request.data
        return ()

    def _submit(self, request):
        stream = self._kept.pop(request.upload)
        inputs = []
        for size in request.stdin:
            inputs.append(stream[:size])
            stream = stream[size:]
        name = f"job{len(self._jobs)}"
        self._jobs[name] = (request, inputs)
        return [job_view(job=name)]

    def _run(self, request):
        asked, inputs = self._jobs[request.job]
        assert self.gate.wait(30)
        env = dict(pair.split(b"=", 1) for pair in asked.environment.split(b"\0") if pair)
        for task, data in enumerate(inputs):
            began = time.monotonic()
            ran = subprocess.run(asked.words, check=False, input=data, capture_output=True, cwd=asked.cwd, env=env)
            yield LogChunk(task=task, data=ran.stdout)
            yield LogChunk(task=task, data=ran.stderr, stream="stderr")
            code = ran.returncode
            ended = TaskEnded(
                task=task,
                state="failed" if code else "done",
                exit=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                reason="exit" if code else "ok",
                seconds=time.monotonic() - began,
            )
            yield from self.doctor(task, [ended])


def square(number):
    return number * number


def add(first, *, second):
    return first + second


def complain(what):
    raise ValueError(f"no {what}")


def say(what):
    print(what)
    os.write(2, b"oops\n")


def argument(thing):
    return thing


class StubbornError(Exception):
    """Cannot be opened where it was not raised."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def stubborn():
    raise StubbornError(1, 2)


def number_of_calls_in(data):
    return sum(kind in (calls.RESULT, calls.ERROR) for kind, _, _ in calls.frames(data))
