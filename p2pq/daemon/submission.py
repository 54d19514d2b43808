"""From a folder, or from commands, to a signed manifest and blobs: what people submit. Blocking; runs in a thread."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from p2pq import decoders
from p2pq.core.intervals import IntervalSet
from p2pq.daemon import bundles, executing, folders, foldersettings, offering, requirements
from p2pq.daemon.additions import Brought, with_config, with_file, with_folder
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.history import JobExtra
from p2pq.daemon.ignore import RESULTS
from p2pq.daemon.requirements import Wanted
from p2pq.daemon.taskfolder import DATA_FILE
from p2pq.errors import RefusedError, Reject, UsageError
from p2pq.model import sources
from p2pq.model.ids import JobId, MeshId, NodeId
from p2pq.model.job import NEEDS_MAX, TASKS_MAX, TIME_DEFAULT_S, Limits
from p2pq.model.params import ARGV_CHARS_MAX, Axis, Range, count_tasks, expand, parse_array, parse_sweep, task_params
from p2pq.wire import body as bodies
from p2pq.wire import codec, feed, names, prims, seal, sign
from p2pq.wire.body import HOOK_CHARS_MAX, AnyJobBody, CommandsBody, JobBody
from p2pq.wire.commandcontrol import SubmitCommands
from p2pq.wire.control import Submit
from p2pq.wire.objects import BLOBS_MAX, Manifest
from p2pq.wire.tree import Chunk, KeyOf, convergent

JOB_LIFE_MS: Final = 366 * 24 * 3600 * 1000
"""A job that nobody ran for a year is given up."""
NAME_CHARS: Final = 60
"""Of a command, so much names its job."""
_CHUNK_KEYS: Final = "p2pq-chunks"


class Sweep(msgspec.Struct, frozen=True, array_like=True):
    """What names and parametrises a job's tasks; kept for people beside the job."""

    array: tuple[Range, ...] = ()
    axes: tuple[Axis, ...] = ()


@dataclass(frozen=True, slots=True)
class Author:
    """Who submits: the keys and names that go into a manifest."""

    node: NodeId
    secret: bytes
    mesh: MeshId
    owner: str

    def chunk_keys(self) -> KeyOf:
        """Return the keys of chunks of this node's jobs."""
        return convergent(prims.derive(self.secret, b"", _CHUNK_KEYS))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job, ready to be queued; its blobs are durable and pinned under its id."""

    job: JobId
    manifest: bytes
    key: bytes
    reply_secret: bytes
    extra: JobExtra
    warnings: tuple[str, ...]


def prepare(  # noqa: PLR0913  a request, who asks, and where it goes
    request: Submit,
    author: Author,
    blobs: BlobStore,
    *,
    only: bytes,
    now_ms: int,
    given_up: Callable[[], bool] = lambda: False,
    earlier: Sequence[str] = (),
    brought: Brought | None = None,
) -> Prepared:
    """Look through the folder, pack it, and sign the job's manifest.

    Args:
        request: as the client sent it; nothing of it is believed.
        author: this node.
        blobs: takes the folder's content.
        only: the node that may run it, or empty.
        now_ms: wall time.
        given_up: tells, while it packs, whether nobody waits for it any more.
        earlier: folders in the folder that hold results of its earlier jobs, as paths in it; they stay at home.
        brought: what goes along with the folder.

    Raises:
        RefusedError: nobody waits for it any more.
        UsageError: the folder or an option is not usable; nothing was queued.
        StorageError: the blobs cannot be kept.
    """
    folder = Path(request.folder)
    sweep = _sweep(request)
    tasks = count_tasks(sweep.array, sweep.axes)
    # Too long for the first task is said here, not by eleven workers.
    expand(request.args, task_params(sweep.array, sweep.axes, 0), job="", task=0, swept=sweep.axes)
    said = (*_said_of_results(request), *map(_said_of_earlier, earlier))
    main, found = _looked_through(request, earlier)
    request = _needing(request, folder, main, found)
    job = JobId(os.urandom(16))
    sink = _sink(blobs, job, given_up)
    with _held(blobs, job, names.display(str(folder))):
        body = _pack(request, sweep, main, found, sink, author.chunk_keys(), brought=brought)
        if len(bodies.tree_refs(body.tree)) > BLOBS_MAX:
            raise UsageError(f"{names.display(str(folder))} is too large for one job; --exclude what it does not need")
        raw, key, reply_secret = _signed(request, author, job, tasks, body, sink, only=only, now_ms=now_ms)
        blobs.sync()
    extra = _extra(request, sweep, tasks, body)
    return Prepared(job, raw, key, reply_secret, extra, (*said, *found.warnings))


@dataclass(frozen=True, slots=True)
class Looked:
    """What a folder is, before it is packed."""

    main: str
    files: tuple[str, ...]
    """What of it travels."""
    wanted: Wanted | None
    """The packages that it asks for."""


def look(request: Submit, earlier: Sequence[str]) -> Looked:
    """Look through the folder of a request. Blocking.

    Raises:
        UsageError: the folder is not usable, or asks for what cannot be had.
    """
    main, found = _looked_through(request, earlier)
    files = tuple(entry.path for entry in found.entries if entry.kind == "file")
    return Looked(main, files, _asked_for(Path(request.folder), main, found))


def _looked_through(request: Submit, earlier: Sequence[str]) -> tuple[str, folders.Scan]:
    """Return what a job runs, and what of its folder travels."""
    folder = Path(request.folder)
    found = folders.scan(folder, (*_stay([*earlier, bundles.FOLDER]), *request.exclude, *_own_results(request)))
    return _main(folder, request.main, found), found


def prepare_commands(
    request: SubmitCommands, author: Author, blobs: BlobStore, *, now_ms: int, chunks: tuple[Chunk, ...] = ()
) -> tuple[Prepared, CommandsBody]:
    """Sign the manifest of a job of commands, which run on this node only; ``chunks`` hold their standard input.

    Its body is returned as well, as it is wanted at once.

    Raises:
        UsageError: there is too much of it, or no command; nothing was queued.
        StorageError: the blobs cannot be kept.
    """
    tasks = sources.count(request.sources) if request.sources else len(request.stdin) or 1
    if not request.words and not request.sources:
        raise UsageError("there is no command to run; name one")
    skipped = IntervalSet(request.skipped)
    skipped.remove(tasks, TASKS_MAX)
    if len(skipped) == tasks:
        raise UsageError("all tasks are skipped, so there is nothing to run")
    if not request.shell and request.sources:
        raise UsageError("a command without a shell is a single task; use `p2pq map` for many")
    name = request.name or " ".join(request.words)[:NAME_CHARS] or "commands"
    body = CommandsBody(
        name=name[:200],
        words=request.words,
        sources=request.sources,
        shell=request.shell,
        cwd=request.cwd,
        environment=request.environment,
        umask=request.umask,
        stdin=feed.Feed(request.stdin, chunks) if request.stdin or chunks else None,
        begin=_hook("--begin", request.begin),
        end=_hook("--end", request.end),
        delay_ms=request.delay_ms or UNSET,
    )
    _check_commands(body)
    job = JobId(os.urandom(16))
    sink = _sink(blobs, job, lambda: False)
    with _held(blobs, job, "the job of commands"):
        if body.stdin is not None:
            feed.check(body.stdin, tasks)
            blobs.pin(job, [chunk.blob for chunk in chunks])
        # Too long for the first task is said here, not by eleven attempts.
        executing.command_line(body, 0)
        raw, key, reply_secret = _signed(request, author, job, tasks, body, sink, only=author.node, now_ms=now_ms)
        blobs.sync()
    extra = JobExtra(
        name=name,
        folder=request.cwd,
        argv=request.words,
        axes=msgspec.msgpack.encode(Sweep((), sources.axes(request.sources))),
        tasks=tasks,
        umask=request.umask,
        skipped=skipped.intervals(),
    )
    return Prepared(job, raw, key, reply_secret, extra, ()), body


@contextmanager
def _held(blobs: BlobStore, job: JobId, what: str) -> Iterator[None]:
    """Let go of what is packed for a job if it cannot be submitted after all; say why, where it is its own doing."""
    try:
        yield
    except BaseException as error:
        blobs.unpin(job)
        if isinstance(error, Reject):
            raise UsageError(f"{what} cannot be submitted: {error.reason}") from error
        raise


def _check_commands(body: CommandsBody) -> None:
    """Raise UsageError where no worker could open this: a struct that is made here is not checked by its type."""
    if not body.shell and sum(map(len, body.words)) > ARGV_CHARS_MAX:
        raise UsageError(f"the arguments are longer than {ARGV_CHARS_MAX} characters; use a file")
    try:
        codec.decode_strict(codec.encode(body), CommandsBody, size_max=bodies.BODY_BYTES_MAX)
    except Reject as error:
        raise UsageError(
            f"too much for one job of commands ({error.reason}): it may have {bodies.WORDS_MAX} words, an environment of 4 MiB, "
            f"and {bodies.BODY_BYTES_MAX >> 20} MiB in all; put long lists into a file"
        ) from error


def _signed(  # noqa: PLR0913  all that a manifest says
    request: Submit | SubmitCommands,
    author: Author,
    job: JobId,
    tasks: int,
    body: AnyJobBody,
    sink: Callable[[bytes, bytes], None],
    *,
    only: bytes,
    now_ms: int,
) -> tuple[bytes, bytes, bytes]:
    """Encrypt a job's body and return its signed manifest, its key, and the secret to which results are sealed."""
    key, reply_secret = os.urandom(32), os.urandom(32)
    refs, parts = bodies.encrypt(key, body)
    for ref, part in zip(refs, parts, strict=True):
        sink(ref.blob, part)
    manifest = Manifest(
        mesh=author.mesh,
        node=author.node,
        owner=author.owner,
        job=job,
        tasks=tasks,
        resources=request.resources,
        limits=Limits(time_s=request.time_s or TIME_DEFAULT_S),
        retries=request.retries,
        priority=request.priority,
        sandbox=request.sandbox if isinstance(request, Submit) else "none",
        only=only,
        reply=prims.x25519_public(reply_secret),
        commit=seal.commitment(key),
        body=refs,
        blobs=bodies.brought(body),
        submitted=now_ms,
        expires=now_ms + JOB_LIFE_MS,
    )
    return sign.sign(prims.SigningKey(author.secret), manifest), key, reply_secret


def _extra(request: Submit, sweep: Sweep, tasks: int, body: JobBody) -> JobExtra:
    results = "" if request.stays else request.results or str(Path(request.folder) / "results")
    return JobExtra(
        name=_name(request),
        folder=str(Path(request.folder)),
        results=results,
        place=os.path.realpath(results) if results else "",
        argv=(body.main, *request.args),
        axes=msgspec.msgpack.encode(sweep),
        tasks=tasks,
        umask=request.umask,
        inputs=inputs_of(body),
    )


def inputs_of(body: JobBody) -> bytes:
    """Return the digest of all that the results of every task depend on, besides its number and parameters."""
    kind = "python" if body.kind == "python-cold" else body.kind
    tree = bundles.own_files(body.tree)  # which nodes there are is no input
    same_for_all = msgspec.structs.replace(body, name="", axes=(), array=(), kind=kind, tree=tree)
    names = tuple(axis.name for axis in body.axes)
    return prims.blake2b(codec.encode((same_for_all, names)), person="p2pq-inputs")


def open_sweep(extra: JobExtra | None) -> Sweep:
    """Return what names a job's tasks, from what was kept of it."""
    return _decoded(extra.axes) if extra is not None and extra.axes else Sweep()


@lru_cache(maxsize=2)  # or whoever lists the tasks of a job would decode all their values for each of them
def _decoded(axes: bytes) -> Sweep:
    return decoders.unpack(axes, Sweep)


def _sweep(request: Submit) -> Sweep:
    array = parse_array(request.array) if request.array else ()
    return Sweep(array, (*(parse_sweep(text) for text in request.sweep), *request.axes))


def _name(request: Submit) -> str:
    return request.name or Path(request.folder).resolve().name or "job"


def _main(folder: Path, wanted: str, found: folders.Scan) -> str:
    """Return what the job runs; it must be among what travels."""
    main = folders.find_main(folder, wanted or None)
    if not any(entry.path == main and entry.kind == "file" for entry in found.entries):
        raise UsageError(f"{names.display(main)} is what the job runs, but --exclude or an ignore file leaves it out")
    return main


def _needing(request: Submit, folder: Path, main: str, found: folders.Scan) -> Submit:
    """Return the request with what its files ask for among its needs.

    Raises:
        UsageError: they ask for what no node builds.
    """
    needs = request.resources.needs
    if request.env == "freeze":
        # What was made here runs where the system and its processor are the same.
        said = {key for key, _ in needs}
        more = tuple((key, value) for key, value in offering.kind_of_machine() if key not in said)
    elif request.env == "none" or requirements.LABEL in needs or _asked_for(folder, main, found) is None:
        return request
    else:
        more = (requirements.LABEL,)
    if len(needs) + len(more) > NEEDS_MAX:
        raise UsageError(f"at most {NEEDS_MAX - len(more)} --need, as packages are {len(more)} more")
    resources = msgspec.structs.replace(request.resources, needs=(*needs, *more))
    return msgspec.structs.replace(request, resources=resources)


def _asked_for(folder: Path, main: str, found: folders.Scan) -> Wanted | None:
    travelling = {entry.path for entry in found.entries if entry.kind == "file"}

    def get(path: str) -> bytes | None:
        if path not in travelling:
            return None
        with (folder / path).open("rb") as file:
            return file.read(requirements.TEXT_MAX + 1)

    try:
        return requirements.read(get, main)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error


def _pack(  # noqa: PLR0913  what travels, and where to
    request: Submit,
    sweep: Sweep,
    main: str,
    found: folders.Scan,
    sink: Callable[[bytes, bytes], None],
    key_of: KeyOf,
    *,
    brought: Brought | None,
) -> JobBody:
    """Pack the folder and return what the job is."""
    folder = Path(request.folder)
    kind = _kind(folder, main, cold=request.cold)
    if brought is not None and brought.main:
        kind, main = "command", f"{brought.path}/{brought.main}"
    config = ""
    tree = folders.pack(folder, found, sink, key_of)
    if request.config:
        config, tree = with_config(tree, folder, Path(request.config), sink, key_of)
    if brought is not None:
        tree = with_folder(tree, brought, sink, key_of)
    if request.data:
        tree = with_file(tree, Path(request.data), DATA_FILE, sink, key_of)
    return JobBody(
        name=_name(request)[:200],
        main=main,
        kind=kind,
        args=request.args,
        axes=sweep.axes,
        array=sweep.array,
        config=config,
        tree=tree,
        begin=_hook("--begin", request.hooks[0]),
        end=_hook("--end", request.hooks[1]),
    )


def _hook(option: str, line: str) -> str | UnsetType:
    """Return what a runner is to run for all tasks, as a body has it.

    Raises:
        UsageError: no shell could be given it.
    """
    if len(line) > HOOK_CHARS_MAX or "\0" in line:
        raise UsageError(
            f"{option} is longer than {HOOK_CHARS_MAX} characters or holds a zero byte; put it into a script"
        )
    return line or UNSET


def _own_results(request: Submit) -> tuple[str, ...]:
    """Return patterns for ``--results`` inside the folder: results of earlier jobs are no input, whatever they are called."""
    if not request.results:
        return ()
    inside = os.path.relpath(os.path.realpath(request.results), os.path.realpath(request.folder))
    if inside == os.curdir or inside.startswith(os.pardir):
        return ()
    return _stay([inside])


def _stay(paths: Iterable[str]) -> tuple[str, ...]:
    """Return patterns for folders, and for what they were called once they were moved aside."""
    plain = [re.sub(r"([\\*?\[\]!# ])", r"\\\1", path) for path in paths]
    return tuple(pattern for path in plain for pattern in (f"/{path}/", f"/{path}.~[0-9]*~/"))


def _said_of_earlier(path: str) -> str:
    shown = names.display(path)
    return f"{shown} holds results of an earlier job and stays at home; --exclude '!/{shown}/' takes it along"


def _said_of_results(request: Submit) -> tuple[str, ...]:
    """Look at what is called ``results`` in the folder; return what is to be said of it.

    Raises:
        UsageError: it is a link, and where results are to go is not said.
    """
    place = Path(request.folder) / RESULTS
    if place.is_symlink() and not request.results:
        target = names.display(os.path.realpath(place))
        raise UsageError(
            f"{names.display(str(place))} is a link; to have results there, say --results {target}; else remove it"
        )
    if not os.path.lexists(place) or (place.is_dir() and not place.is_symlink()):
        return ()
    kind = "a link" if place.is_symlink() else "no folder"
    return (f"{RESULTS} is {kind} and stays at home: every task has a folder of that name, for what it brings back",)


def _sink(blobs: BlobStore, job: JobId, given_up: Callable[[], bool]) -> Callable[[bytes, bytes], None]:
    def sink(blob: bytes, ciphertext: bytes) -> None:
        if given_up():
            raise RefusedError("interrupted before the folder was packed; submit again")
        blobs.add(blob, ciphertext, pin=job)

    return sink


def _kind(folder: Path, main: str, *, cold: bool) -> Literal["python", "python-cold", "shell", "command"]:
    warm = foldersettings.read(folder, main).warm
    if main.endswith(".py"):
        return "python" if warm and not cold else "python-cold"
    if os.access(folder / main, os.X_OK):
        return "command"
    if main.endswith(".sh"):
        return "shell"
    raise UsageError(f"{names.display(main)} is neither Python nor executable; run `chmod +x` on it")
