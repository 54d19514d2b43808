"""What an attempt executes: the arguments and the environment of a task, out of what its job says."""

import os
from functools import lru_cache
from typing import Final

from p2pq.daemon.sandbox import JobPython
from p2pq.errors import Reject, UsageError
from p2pq.model import template
from p2pq.model.params import expand
from p2pq.model.sources import values
from p2pq.wire.body import CommandsBody, JobBody

THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Told how many cpus the task asked for, so that libraries do not start a thread per cpu of the machine."""

SHELLS: Final = frozenset({"sh", "ash", "bash", "dash", "ksh", "ksh93", "mksh", "yash", "zsh"})
"""They take a word in single quotes, as values are put into command lines, for what it is. fish and csh do not quite."""


def command(job: JobBody, params: dict[str, str], python: JobPython, *, job_id: str, number: int) -> tuple[str, ...]:
    """Return the argument vector of one task.

    Raises:
        Reject: it is too long for any machine.
    """
    try:
        arguments = expand(job.args, params, job=job_id, task=number, swept=job.axes)
    except UsageError as error:
        raise Reject(str(error)) from error
    if job.config and not any("{config}" in arg for arg in job.args):
        arguments += ["--config", job.config]
    match job.kind:
        case "python" | "python-cold":
            return (str(python.executable), job.main, *arguments)
        case "shell":
            return ("/bin/sh", job.main, *arguments)
        case "command":
            return (f"./{job.main}", *arguments)


def command_line(job: CommandsBody, task: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the argument vector of a task, and another where that cannot be executed: a shell knows more than programs.

    Raises:
        Reject: it is too long for any machine.
    """
    if not job.shell:
        return job.words, ()
    try:
        line = template.render(job.words, values(job.sources, task), task + 1)
    except UsageError as error:
        raise Reject(str(error)) from error
    program = shell_of(job.environment)
    shell = (program, "-c", line)
    # A function that the user's shell has exported comes before a program of that name.
    argv = shell if b"BASH_FUNC_" in job.environment else template.argv(line, program)
    return argv, () if argv == shell else shell


@lru_cache(maxsize=16)  # all tasks of a job have the same
def shell_of(environment: bytes) -> str:
    """Return the shell for command lines: ``PARALLEL_SHELL`` of whoever submits, else ``SHELL``, if it reads them as sh does."""
    found = dict(each.partition(b"=")[::2] for each in environment.split(b"\0"))
    for name in (b"PARALLEL_SHELL", b"SHELL"):
        path = os.fsdecode(found.get(name, b""))
        if path.startswith("/") and path.rpartition("/")[2] in SHELLS and os.access(path, os.X_OK):
            return path
    return "/bin/sh"


def own_environment(job: CommandsBody) -> dict[str, str]:
    """Return the environment of whoever submitted a command."""
    pairs = (os.fsdecode(each).partition("=") for each in job.environment.split(b"\0"))
    return {key: value for key, equals, value in pairs if key and equals}


def for_libraries(cpus: int) -> dict[str, str]:
    """Return what Python and libraries for numbers are told by their environment."""
    # Unbuffered, or live logs would come in blocks of 8 KiB.
    return {"PYTHONUNBUFFERED": "1", **dict.fromkeys(THREAD_VARIABLES, str(cpus))}
