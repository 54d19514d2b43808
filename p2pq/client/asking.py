"""What callers say, as requests of the local API: folders, sweeps and needs as Python has them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from p2pq.client.inherited import environment, umask
from p2pq.errors import UsageError
from p2pq.model.amounts import parse_megabytes
from p2pq.model.job import Resources
from p2pq.model.params import parse_sweep
from p2pq.model.sources import Source
from p2pq.wire.commandcontrol import SubmitCommands
from p2pq.wire.control import Submit

AnyPath = str | os.PathLike[str]


class CommandOptions(TypedDict, total=False):
    """What ``commands`` takes besides the command; all of it may be left out. See ``p2pq map --help``."""

    name: str
    """What to call the job; the folder's name, or the command's."""
    cpus: int
    """Per task, as ``memory`` and ``gpus``."""
    memory: str | int
    """``"4G"``, or MiB."""
    gpus: int
    time_s: int
    """Longest run of a task; 24 h."""
    retries: int
    """Further attempts after a failure; 1."""
    priority: int
    """Among your own jobs; higher first."""
    halt: str
    """When to stop by itself: ``now,fail=3``, ``soon,fail=10%``."""


class JobOptions(CommandOptions, total=False):
    """What ``submit`` takes besides a folder and arguments; all of it may be left out. See ``p2pq submit --help``."""

    main: str
    """The file to run, where main.py and its kin do not say."""
    results: AnyPath
    """Where results go; ``FOLDER/results``."""
    exclude: Sequence[str]
    """Patterns of what stays at home, besides .p2pqignore and .gitignore."""
    array: range | Iterable[int] | str
    """One task per number."""
    sweep: Mapping[str, Iterable[object] | str]
    """One task per combination of values, each as ``str`` has it; a text is a range as typed: ``{"x": "0:1:0.1"}``."""
    config: AnyPath
    """A file that travels along and is passed as ``--config``."""
    data: object
    """Anything that can be pickled; ``p2pq.job.data()`` returns it in the job."""
    needs: Mapping[str, str]
    """Labels that a machine must have: ``{"has": "numpy"}``."""
    where: str
    """``any``, ``local``, or the name or id of a node."""
    sandbox: Literal["strict", "basic", "none"]
    """``basic`` also where only a weaker one works; ``none`` only with ``where="local"``."""
    resume: bool
    """Run only what the latest job of this folder has not done."""
    keep_done: bool
    """``resume`` that keeps what was done even if files or arguments have changed."""
    cold: bool
    """Each task in a fresh interpreter, not in a fork of one that has imported what the script imports."""
    env: Literal["auto", "none", "bundle", "freeze"]
    """``none``: the Python that is there, whatever packages the folder's files ask for; ``bundle``: they go along as wheels;
    ``freeze``: they and Python go along as one program."""


def submit_of(folder: AnyPath, args: Iterable[object], options: JobOptions) -> Submit:
    """Return the request that submits a folder.

    Raises:
        TypeError: there is no such option.
        UsageError: a value cannot be told to the node as it is.
    """
    said = _known("submit", options, JobOptions)
    resources = resources_of(said)
    for option in ("results", "config", "data"):
        if option in said:
            said[option] = str(Path(said[option]).absolute())
    if "array" in said:
        said["array"] = _array(said["array"])
    if "exclude" in said:
        said["exclude"] = _words(said["exclude"], "exclude")
    sweep: Mapping[str, Iterable[object] | str] = said.pop("sweep", {})
    said["resume"] = said.get("resume", False) or said.get("keep_done", False)
    return Submit(
        folder=str(Path(folder).absolute()),
        args=_words(args, "args"),
        sweep=tuple(_axis(name, values) for name, values in sweep.items()),
        resources=resources,
        umask=umask(),
        **said,
    )


def commands_of(
    words: Iterable[object], sources: Iterable[Iterable[object]], options: CommandOptions
) -> SubmitCommands:
    """Return the request that runs commands in this folder, with this environment.

    Raises:
        TypeError: there is no such option.
        UsageError: a value cannot be told to the node as it is.
    """
    said = {"retries": 1} | _known("commands", options, CommandOptions)
    values = tuple(Source(_words(each, "a source")) for each in sources)
    if not all(source.values for source in values):
        raise UsageError("a source without values makes no task; leave it out, or give it some")
    return SubmitCommands(
        words=_words(words, "words"),
        sources=values,
        shell=bool(values),
        cwd=str(Path.cwd()),
        environment=environment(),
        resources=resources_of(said),
        umask=umask(),
        **said,
    )


def _known(call: str, options: CommandOptions, kind: type[CommandOptions]) -> dict[str, Any]:
    if unknown := sorted(options.keys() - kind.__annotations__.keys()):
        raise TypeError(f"{call}() has no option {unknown[0]!r}; see p2pq.client.asking.{kind.__name__}")
    return dict(options)


def resources_of(said: dict[str, Any]) -> Resources:
    """Take what a task needs out of the options."""
    memory = said.pop("memory", 0)
    return Resources(
        cpus=said.pop("cpus", 1),
        memory_mb=parse_megabytes(memory) if isinstance(memory, str) else memory,
        gpus=said.pop("gpus", 0),
        needs=tuple(said.pop("needs", {}).items()),
    )


def _words(words: Iterable[object], option: str) -> tuple[str, ...]:
    if isinstance(words, str):
        raise UsageError(f"{option} is a list of words and not a text; write [{words!r}]")
    return tuple(map(str, words))


def _array(array: range | Iterable[int] | str) -> str:
    """Return an array as the node reads it; an empty one would be none."""
    if isinstance(array, range):
        numbers = array if array.step > 0 else array[::-1]
        text = f"{numbers[0]}-{numbers[-1]}:{numbers.step}" if numbers else ""
    else:
        text = array if isinstance(array, str) else ",".join(map(str, array))
    if not text:
        raise UsageError("an array without numbers makes no task; leave it out, or give it some")
    return text


def _axis(name: str, values: Iterable[object] | str) -> str:
    """Return a swept parameter as the node reads it.

    Raises:
        UsageError: it would read something else.
    """
    if isinstance(values, str):
        return f"{name}={values}"
    wanted = tuple(map(str, values))
    if not wanted:
        raise UsageError(f"the sweep of {name!r} has no values; leave it out, or give it some")
    text = f"{name}={','.join(wanted)}"
    if wanted == ("",) or parse_sweep(text).values != wanted:
        raise UsageError(
            f"a value of the sweep of {name!r} is empty, has a comma, a blank at an end, or looks like a range; "
            "put such values into a file and sweep their numbers"
        )
    return text
