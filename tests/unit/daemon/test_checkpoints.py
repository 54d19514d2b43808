"""What an earlier attempt left: believed no more than any other tree, and never a reason to fail."""

import os
from pathlib import Path

import msgspec
import pytest

from p2pq.core.effects import Start
from p2pq.daemon.blobstore import BlobMissingError, BlobStore
from p2pq.daemon.checkpoints import open_checkpoint, put_in_place
from p2pq.daemon.unpack import collect
from p2pq.errors import DiskFullError
from p2pq.model.ids import JobId, LeaseId, NodeId
from p2pq.wire import body as bodies
from p2pq.wire.body import ResultBody
from p2pq.wire.tree import File, Tree, TreeLimits
from tests.unit.daemon.guestkit import start_of

KEY = b"c" * 32


class Bench:
    """The blobs of an earlier attempt's result, and a task about to start."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.blobs = BlobStore(tmp_path / "blobs", quota_bytes=1 << 30, reserve_bytes=0)
        self.root = tmp_path / "job"
        (self.root / "results").mkdir(parents=True)

    def tree(self, files: dict[str, str]) -> Tree:
        source = self.folder / os.urandom(4).hex()
        for name, text in files.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(text)
        return collect(source, TreeLimits(), self.blobs.put, lambda _: os.urandom(32))[0]

    def start(self, tree: Tree, key: bytes = KEY) -> Start:
        refs, parts = bodies.encrypt(KEY, ResultBody(tree=tree, output=Tree()))
        for ref, part in zip(refs, parts, strict=True):
            self.blobs.put(ref.blob, part)
        which = {"master": NodeId(b"a" * 32), "lease": LeaseId(1, 2), "job": JobId(b"j" * 16)}
        return start_of(**which, checkpoint_key=key, checkpoint=refs)  # type: ignore[arg-type]

    def left(self) -> dict[str, str]:
        results = self.root / "results"
        return {str(path.relative_to(results)): path.read_text() for path in results.rglob("*") if path.is_file()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


LEFT = {".checkpoint/state": "half way", ".checkpoint/deep/more": "x", "partial.txt": "7"}


def test_the_checkpoint_is_put_in_place_and_nothing_else(bench: Bench):
    start = bench.start(bench.tree(LEFT))
    tree = open_checkpoint(start, bench.blobs, 1000)
    assert tree is not None
    assert put_in_place(start, tree, bench.blobs, bench.root)
    assert bench.left() == {".checkpoint/state": "half way", ".checkpoint/deep/more": "x"}


@pytest.mark.parametrize(
    ("files", "key", "bytes_max", "why"),
    [
        (LEFT, b"x" * 32, 1000, "decryption failed"),
        (LEFT, KEY, 5, "a tree holds too many bytes"),
        ({"partial.txt": "7"}, KEY, 1000, "it holds nothing"),
    ],
)
def test_one_that_is_of_no_use_is_let_go_and_the_log_says_why(bench: Bench, caplog, files, key, bytes_max, why):
    assert open_checkpoint(bench.start(bench.tree(files), key), bench.blobs, bytes_max) is None
    assert caplog.records[0].fields["reason"] == why


def test_a_part_that_is_not_here_is_this_machines_trouble(bench: Bench):
    start = bench.start(bench.tree(LEFT))
    bench.blobs.discard([start.checkpoint[0].blob])
    with pytest.raises(BlobMissingError):
        open_checkpoint(start, bench.blobs, 1000)


def test_a_hostile_tree_does_not_escape(bench: Bench, caplog):
    tree = bench.tree(LEFT)
    evil = msgspec.structs.replace(tree, files=(File(".checkpoint/../../../x", False, 0, ()),))
    assert open_checkpoint(bench.start(evil), bench.blobs, 1000) is None
    assert caplog.records[0].fields["reason"] == "a name is empty, . or .."


def test_chunks_that_do_not_open_leave_nothing_half_written(bench: Bench, caplog):
    tree = bench.tree(LEFT)
    wrong = tuple(msgspec.structs.replace(chunk, key=b"w" * 32) for chunk in tree.chunks)
    empty = File(".checkpoint/a", False, 0, ())  # written before the first chunk is opened
    start = bench.start(msgspec.structs.replace(tree, chunks=wrong, files=(empty, *tree.files)))
    tree = open_checkpoint(start, bench.blobs, 1000)
    assert tree is not None
    assert not put_in_place(start, tree, bench.blobs, bench.root)
    assert list((bench.root / "results").iterdir()) == []
    assert caplog.records[0].fields["reason"] == "decryption failed"


def test_what_is_in_the_way_is_never_overwritten(bench: Bench):
    start = bench.start(bench.tree(LEFT))
    tree = open_checkpoint(start, bench.blobs, 1000)
    assert tree is not None
    elsewhere = bench.folder / "elsewhere"
    elsewhere.mkdir()
    (bench.root / "results" / ".checkpoint").symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic link"):
        put_in_place(start, tree, bench.blobs, bench.root)
    assert list(elsewhere.iterdir()) == []


def test_a_full_disk_is_this_machines_trouble(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise DiskFullError("the disk is full")

    start = bench.start(bench.tree(LEFT))
    tree = open_checkpoint(start, bench.blobs, 1000)
    assert tree is not None
    monkeypatch.setattr("p2pq.daemon.checkpoints.unpack", full)
    with pytest.raises(DiskFullError):
        put_in_place(start, tree, bench.blobs, bench.root)
