"""What an attempt left, packed, encrypted and made durable here. Blocking; nothing of the attempt runs any more."""

import os
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from p2pq.core.effects import Start
from p2pq.daemon.attempt import Outcome, exited
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.taskfolder import remove_progress
from p2pq.daemon.unpack import ReplacedError, collect
from p2pq.errors import Reject, SandboxError, StorageError
from p2pq.wire import body as bodies
from p2pq.wire import seal
from p2pq.wire.body import CHECKPOINT, ResultBody
from p2pq.wire.objects import BlobRef
from p2pq.wire.tree import Chunk, File, Part, Tree, TreeLimits, seal_chunk


@dataclass(frozen=True, slots=True)
class Sealed:
    """What an attempt left, encrypted and kept here."""

    key: bytes = b""
    body: tuple[BlobRef, ...] = ()
    blobs: tuple[BlobRef, ...] = ()
    failure: Literal["", "disk-limit", "exit"] = ""
    """Why the attempt has failed whatever its exit code: its results passed a limit, or it put something else in their place."""
    checkpoint: bool = False
    """There is something for the next attempt in it."""


TOGETHER_BYTES: Final = 64 << 10
"""So much of what attempts of one job print is in one chunk: whoever reads what one has printed opens it all."""
NOTHING: Final = Sealed()
"""Of an attempt that left and printed nothing, and of which nothing else is to be said."""


@dataclass(frozen=True, slots=True)
class Sealer:
    """Seals what one attempt leaves."""

    start: Start
    blobs: BlobStore
    tag: Hashable
    """What holds the blobs."""
    bytes_max: int
    """What the results may hold."""
    unwanted: Callable[[], bool]
    """Whether nobody waits for it any more; asked at every blob."""
    stood: Callable[[], str] = str
    """What there is to tell of how long it stood still."""

    def seal(self, folder: Path, outcome: Outcome) -> Sealed:
        """Pack and encrypt what an attempt left in its folder and printed; ``secure`` makes it durable.

        Of an attempt that was told to end only the checkpoint is taken, if there is one; a good one leaves none.

        Raises:
            SandboxError: nobody waits for it any more.
            StorageError: it cannot be kept, or not be read by this machine's doing.
        """
        try:
            return self._seal(folder, outcome)
        except OSError as error:
            raise StorageError(f"what it left cannot be read: {error.strerror}") from error

    def printed(self, printed: "Printed", chunk: tuple[Chunk, bytes] | None, at: int) -> Sealed:
        """Encrypt how an attempt ended that left nothing but what it printed, which is in a chunk from there on.

        Raises:
            StorageError: it cannot be kept.
        """
        chunks: tuple[Chunk, ...] = ()
        if chunk is not None and printed.size:
            self.blobs.add(chunk[0].blob, chunk[1], pin=self.tag)
            chunks = (chunk[0],)
        files = []
        for name, data in (("stderr", printed.stderr), ("stdout", printed.stdout)):
            parts = (Part(0, at, len(data)),) if data else ()
            files.append(File(name, executable=False, size=len(data), parts=parts))
            at += len(data)
        output = Tree(files=tuple(files), chunks=chunks)
        body = ResultBody(tree=Tree(), output=output, detail=printed.outcome.detail)
        return self._close(body, lambda blob, ciphertext: self.blobs.add(blob, ciphertext, pin=self.tag))

    def secure(self, *sealed: Sealed) -> None:
        """Make durable what attempts of one job left.

        Raises:
            StorageError: the disk failed.
        """
        if not self.start.own:
            # Else the master, this very node, does it before the results count; until then the tasks can run again.
            self.blobs.sync([ref.blob for each in sealed for ref in (*each.body, *each.blobs)])

    def _seal(self, folder: Path, outcome: Outcome) -> Sealed:
        plain = outcome.detail == exited(outcome.exit) and outcome.silent
        remove_progress(folder)
        if self.start.may_be_empty and plain and self._left_nothing(folder / "results"):
            return NOTHING  # which needs no blob

        def sink(blob: bytes, ciphertext: bytes) -> None:
            if self.unwanted():
                raise SandboxError("it was ended before its results were packed")
            self.blobs.add(blob, ciphertext, pin=self.tag)

        failure: Literal["", "disk-limit", "exit"] = ""
        detail = outcome.detail
        try:
            limits = TreeLimits(bytes_max=self.bytes_max)
            tree, skipped = collect(folder / "results", limits, sink, random_key, _wanted(outcome))
        except (Reject, ReplacedError) as error:
            # The task's own doing: it must not be tried on every machine as if this one had failed.
            failure, detail = ("disk-limit" if isinstance(error, Reject) else "exit"), str(error)
            if failure == "disk-limit":
                detail = f"{detail}; nothing of them was taken along"
            tree, skipped = Tree(), ()
            self.blobs.unpin(self.tag)
        checkpoint = bodies.has_checkpoint(tree)
        if outcome.reason == "evicted" and not checkpoint:
            self.blobs.unpin(self.tag)
            return Sealed()
        output, _ = collect(outcome.stdout.parent, TreeLimits(), sink, random_key, {"stdout", "stderr"}.__contains__)
        body = ResultBody(
            tree=tree, output=output, detail="; ".join(filter(None, (detail, self.stood()))), skipped=skipped
        )
        return replace(self._close(body, sink), failure=failure, checkpoint=checkpoint)

    def _left_nothing(self, results: Path) -> bool:
        """Tell whether there are no results to write out. Of a job's only task there are: a folder, even if it is empty."""
        if self.start.tasks > 1:
            with suppress(OSError):
                results.rmdir()  # only where it is a folder and empty, whatever its mode
        return not os.path.lexists(results)  # commands have none

    def _close(self, body: ResultBody, sink: Callable[[bytes, bytes], None]) -> Sealed:
        """Encrypt the list of what an attempt left, and seal its key to whoever submitted it."""
        key, start = os.urandom(32), self.start
        refs, parts = bodies.encrypt(key, body)
        for ref, part in zip(refs, parts, strict=True):
            sink(ref.blob, part)
        blobs = tuple(dict.fromkeys((*bodies.tree_refs(body.tree), *bodies.tree_refs(body.output))))
        context = bodies.result_context(start.job, start.task, start.attempt, start.lease)
        return Sealed(seal.seal(start.reply, key, context, os.urandom), refs, blobs)


@dataclass(frozen=True, slots=True)
class Printed:
    """What an attempt printed that left nothing else."""

    sealer: Sealer
    outcome: Outcome
    stdout: bytes
    stderr: bytes

    @property
    def size(self) -> int:
        """Bytes of both."""
        return len(self.stdout) + len(self.stderr)


def seal_printed(attempts: Sequence[Printed]) -> list[Sealed]:
    """Encrypt what attempts of one job printed that left nothing else, in few blobs; whoever calls makes them durable.

    Raises:
        StorageError: it cannot be kept.
    """
    sealed: list[Sealed] = []
    while len(sealed) < len(attempts):
        some: list[Printed] = []
        size = 0
        for each in attempts[len(sealed) :]:
            if some and size + each.size > TOGETHER_BYTES:
                break
            some.append(each)
            size += each.size
        chunk = seal_chunk(b"".join(each.stderr + each.stdout for each in some), random_key) if size else None
        at = 0
        for each in some:
            sealed.append(each.sealer.printed(each, chunk, at))
            at += each.size
    return sealed


def _wanted(outcome: Outcome) -> Callable[[str], bool]:
    match outcome.reason:
        case "evicted":
            return lambda name: name == CHECKPOINT
        case "ok":
            return lambda name: name != CHECKPOINT
        case _:
            return lambda _: True


def random_key(_inner: bytes) -> bytes:
    """Return a key that is used once."""
    return os.urandom(32)
