"""What is taken of an attempt's results, by how it ended."""

import os
import shutil
from pathlib import Path

import msgspec
import pytest

from p2pq.daemon import sealing
from p2pq.daemon.attempt import Outcome, exited
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.sealing import NOTHING, Printed, Sealed, Sealer, seal_printed
from p2pq.daemon.unpack import unpack
from p2pq.errors import SandboxError
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.wire import body as bodies
from p2pq.wire import prims, seal
from p2pq.wire.body import ResultBody
from p2pq.wire.tree import TreeLimits, read_part
from tests.unit.daemon.guestkit import REPLY, start_of

TAG = "lease"


class Bench:
    """One attempt that has ended, and what it left."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "job"
        self.out = tmp_path / "out"
        self.blobs = BlobStore(tmp_path / "blobs", quota_bytes=1 << 30, reserve_bytes=0)
        self.start = start_of(master=NodeId(b"a" * 32), lease=LeaseId(1, 1), job=JobId(b"j" * 16))
        self.unwanted = False
        self.leave({"out.txt": "42", ".checkpoint/state": "half way", ".checkpoint/deep/more": "x"})
        self.out.mkdir()
        for name in ("stdout", "stderr"):
            (self.out / name).write_text(name)

    def leave(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / "results" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def seal(self, reason: str, detail: str = "it ended") -> Sealed:
        sealer = Sealer(start=self.start, blobs=self.blobs, tag=TAG, bytes_max=1000, unwanted=lambda: self.unwanted)
        outcome = Outcome(
            exit=1,
            signal=None,
            seconds=0.1,
            max_rss=1,
            reason=reason,  # type: ignore[arg-type]
            detail=detail,
            stdout=self.out / "stdout",
            stderr=self.out / "stderr",
        )
        return sealer.seal(self.folder, outcome)

    def opened(self, sealed: Sealed, tmp_path: Path) -> tuple[ResultBody, dict[str, str]]:
        context = bodies.result_context(self.start.job, self.start.task, self.start.attempt, self.start.lease)
        key = seal.open_seal(REPLY, sealed.key, context)
        parts = {ref.blob: self.blobs.get(ref.blob) for ref in sealed.body}
        body = bodies.decrypt(key, sealed.body, parts, ResultBody)
        to = tmp_path / os.urandom(4).hex()
        unpack(body.tree, lambda chunk: self.blobs.get(chunk.blob), to)
        return body, {str(path.relative_to(to)): path.read_text() for path in to.rglob("*") if path.is_file()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


CHECKPOINT = {".checkpoint/state": "half way", ".checkpoint/deep/more": "x"}


@pytest.mark.parametrize(
    ("reason", "files", "checkpoint"),
    [
        ("ok", {"out.txt": "42"}, False),
        ("exit", {"out.txt": "42", **CHECKPOINT}, True),
        ("time-limit", {"out.txt": "42", **CHECKPOINT}, True),
        ("evicted", CHECKPOINT, True),
    ],
)
def test_what_is_taken_of_results(bench: Bench, tmp_path: Path, reason: str, files: dict[str, str], checkpoint: bool):
    sealed = bench.seal(reason)
    body, found = bench.opened(sealed, tmp_path)
    assert found == files
    assert {file.path for file in body.output.files} == {"stdout", "stderr"}
    assert (sealed.checkpoint, sealed.failure, body.detail, body.skipped) == (checkpoint, "", "it ended", ())
    assert {ref.blob for ref in (*sealed.body, *sealed.blobs)} == bench.blobs._tags[TAG]


def test_of_one_that_was_told_to_end_and_left_nothing_there_is_nothing(bench: Bench):
    for name in (".checkpoint/state", ".checkpoint/deep/more"):
        (bench.folder / "results" / name).unlink()
    (bench.folder / "results/.checkpoint/deep").rmdir()
    bench.blobs.pin(TAG, [b"i" * 32])
    assert bench.seal("evicted") == Sealed()
    assert not bench.blobs._tags


def test_a_link_in_place_of_the_results_is_not_followed(bench: Bench, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    (bench.folder / "results").rename(elsewhere)
    (bench.folder / "results").symlink_to(elsewhere)
    (elsewhere / ".progress").write_text("0.5")
    assert bench.seal("evicted") == Sealed()
    assert (elsewhere / ".progress").exists()


@pytest.mark.parametrize("reason", ["ok", "exit"])
def test_something_else_in_place_of_the_results_is_a_failure_that_says_so(bench: Bench, tmp_path: Path, reason: str):
    (bench.folder / "results").rename(bench.folder / "out")
    (bench.folder / "results").symlink_to("out")
    sealed = bench.seal(reason)
    body, found = bench.opened(sealed, tmp_path)
    assert (sealed.failure, found) == ("exit", {})
    assert body.detail == "results is a link now, not a folder; nothing of it was taken along"
    assert {file.path for file in body.output.files} == {"stdout", "stderr"}


def test_what_cannot_travel_is_named(bench: Bench, tmp_path: Path):
    os.mkfifo(bench.folder / "results/pipe")
    (bench.folder / "results/out.txt").chmod(0)
    body, found = bench.opened(bench.seal("ok"), tmp_path)
    assert found == {"out.txt": "42"}
    assert body.skipped == ("pipe: is a pipe, a socket or a device",)


def test_a_checkpoint_beyond_the_limits_is_left_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sealing, "TreeLimits", lambda **_: TreeLimits(entries_max=2))
    assert bench.seal("evicted") == Sealed()
    failed = bench.seal("exit")
    assert (failed.failure, failed.checkpoint) == ("disk-limit", False)


def test_what_nobody_waits_for_is_not_packed_to_its_end(bench: Bench):
    bench.unwanted = True
    with pytest.raises(SandboxError, match="ended before"):
        bench.seal("evicted")


def test_progress_is_for_the_way_only(bench: Bench, tmp_path: Path):
    bench.leave({".progress": "0.5"})
    assert ".progress" not in bench.opened(bench.seal("ok"), tmp_path)[1]


def test_keys_are_used_once():
    assert sealing.random_key(b"x") != sealing.random_key(b"x")
    assert len(sealing.random_key(b"")) == prims.KEY_BYTES


@pytest.mark.parametrize(
    ("empty", "tasks", "files", "printed", "nothing"),
    [
        (True, 2, [], "", True),
        (True, 2, [".progress"], "", True),
        (True, 2, ["a"], "", False),
        (True, 2, [], "a", False),
        (True, 1, [], "", False),
        (False, 2, [], "", False),
    ],
    ids=[
        "silent",
        "told how far it was",
        "left a file",
        "printed",
        "the only one, whose folder is made",
        "for who does not take it",
    ],
)
def test_of_one_of_many_that_left_nothing_nothing_is_kept(
    tmp_path: Path, *, empty: bool, tasks: int, files: list[str], printed: str, nothing: bool
):
    bench = Bench(tmp_path)
    shutil.rmtree(bench.folder / "results")
    (bench.folder / "results").mkdir()
    bench.leave(dict.fromkeys(files, "0.5"))
    for name in ("stdout", "stderr"):
        (bench.out / name).write_text(printed)
    bench.start = msgspec.structs.replace(bench.start, may_be_empty=empty, tasks=tasks)
    sealed = bench.seal("ok", detail=exited(1))
    assert (sealed == NOTHING, bool(bench.blobs._tags)) == (nothing, not nothing)


def test_results_that_a_task_closed_are_looked_into(bench: Bench, tmp_path: Path):
    bench.start = msgspec.structs.replace(bench.start, may_be_empty=True, tasks=2)
    for name in ("stdout", "stderr"):
        (bench.out / name).write_text("")
    (bench.folder / "results").chmod(0)
    _, found = bench.opened(bench.seal("ok", detail=exited(1)), tmp_path)
    assert found == {"out.txt": "42"}


def printed(tmp_path: Path, blobs: BlobStore, *texts: tuple[bytes, bytes]) -> list[Printed]:
    """Return what attempts printed: standard output and error of each."""
    found = []
    for number, (stdout, stderr) in enumerate(texts):
        start = start_of(master=NodeId(b"a" * 32), lease=LeaseId(1, number), job=JobId(b"j" * 16), task=number)
        sealer = Sealer(start=start, blobs=blobs, tag=number, bytes_max=1000, unwanted=bool)
        outcome = Outcome(
            exit=0,
            signal=None,
            seconds=0.1,
            max_rss=1,
            reason="ok",
            detail="it exited",
            stdout=tmp_path / "stdout",
            stderr=tmp_path / "stderr",
        )
        found.append(Printed(sealer, outcome, stdout, stderr))
    return found


def read_back(each: Printed, sealed: Sealed, blobs: BlobStore) -> tuple[bytes, bytes]:
    """Return what a sealed result says that an attempt printed."""
    start = each.sealer.start
    context = bodies.result_context(start.job, start.task, start.attempt, start.lease)
    key = seal.open_seal(REPLY, sealed.key, context)
    tree = bodies.decrypt(key, sealed.body, {ref.blob: blobs.get(ref.blob) for ref in sealed.body}, ResultBody).output
    assert {ref.blob for ref in bodies.tree_refs(tree)} == {ref.blob for ref in sealed.blobs}
    data = {file.path: b"".join(read_part(tree, part, blobs.get) for part in file.parts) for file in tree.files}
    return data["stdout"], data["stderr"]


def test_what_attempts_print_shares_a_blob_and_each_has_its_own_part(tmp_path):
    blobs = BlobStore(tmp_path / "blobs", quota_bytes=1 << 30, reserve_bytes=0)
    texts = [(b"one", b""), (b"", b""), (b"two", b"err"), (b"", b"three")]
    attempts = printed(tmp_path, blobs, *texts)
    sealed = seal_printed(attempts)
    assert [read_back(each, result, blobs) for each, result in zip(attempts, sealed, strict=True)] == texts
    assert [len(each.blobs) for each in sealed] == [1, 0, 1, 1], "one that printed nothing needs none of it"
    assert len(blobs) == len(texts) + 1
    for number in (0, 1, 2):
        blobs.unpin(number)
    blobs.discard([ref.blob for each in sealed[:3] for ref in (*each.body, *each.blobs)])
    assert read_back(attempts[3], sealed[3], blobs) == texts[3], "who still wants it has it"


def test_those_who_print_more_share_less(tmp_path):
    blobs = BlobStore(tmp_path / "blobs", quota_bytes=1 << 30, reserve_bytes=0)
    texts = [(bytes([number]) * (sealing.TOGETHER_BYTES // 2), b"") for number in range(4)]
    texts.append((b"x" * (sealing.TOGETHER_BYTES + 1), b""))
    attempts = printed(tmp_path, blobs, *texts)
    sealed = seal_printed(attempts)
    assert [read_back(each, result, blobs) for each, result in zip(attempts, sealed, strict=True)] == texts
    chunks = [result.blobs[0] for result in sealed]
    assert chunks[0] == chunks[1] != chunks[2] == chunks[3] != chunks[4]
    assert seal_printed([]) == []
