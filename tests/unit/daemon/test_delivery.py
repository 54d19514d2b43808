"""Results into the owner's folder."""

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from p2pq.daemon import delivery, files, room
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.unpack import collect
from p2pq.errors import DiskFullError, Reject, StorageError
from p2pq.model.ids import LeaseId
from p2pq.model.job import Limits, Outcome
from p2pq.wire import body, prims, seal
from p2pq.wire.body import ResultBody
from p2pq.wire.objects import ResultItem
from p2pq.wire.tree import PLAIN_MAX, Directory, File, Part, Tree, TreeLimits, seal_chunk
from tests.unit.core.mesh import submitted

REPLY = b"r" * 32
LEASE = LeaseId(1, 2)


@pytest.fixture
def blobs(tmp_path):
    return BlobStore(tmp_path / "blobs", quota_bytes=1 << 30, reserve_bytes=0)


@pytest.fixture
def tree(tmp_path, blobs):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_text("alpha")
    (source / "sub/b.bin").write_bytes(os.urandom(1000))
    found, _ = collect(source, TreeLimits(), blobs.put, lambda _: os.urandom(32))
    return found


def result(blobs, tree, **changes):
    key = b"k" * 32
    refs, parts = body.encrypt(key, ResultBody(tree=tree, output=Tree()))
    for ref, part in zip(refs, parts, strict=True):
        blobs.put(ref.blob, part)
    item = {"job": b"j" * 16, "task": 3, "attempt": 1, "lease": LEASE}
    context = body.result_context(item["job"], item["task"], item["attempt"], item["lease"])
    wrapped = seal.seal(prims.x25519_public(REPLY), key, context, os.urandom)
    return ResultItem(**{**item, **changes}, outcome=Outcome(reason="ok"), sandbox="strict", key=wrapped, body=refs)


def test_a_result_opens_with_the_jobs_reply_secret_only(blobs, tree):
    assert delivery.open_result(result(blobs, tree), REPLY, blobs, Limits()).tree == tree
    with pytest.raises(Reject):
        delivery.open_result(result(blobs, tree), b"x" * 32, blobs, Limits())


@pytest.mark.parametrize("change", [{"task": 4}, {"attempt": 2}, {"lease": LeaseId(1, 3)}, {"job": b"x" * 16}])
def test_a_result_of_another_attempt_does_not_open(blobs, tree, change):
    with pytest.raises(Reject):
        delivery.open_result(result(blobs, tree, **change), REPLY, blobs, Limits())


def test_one_task_goes_into_results_itself_and_many_below(tmp_path):
    assert delivery.target(tmp_path, tasks=1, number=0) == tmp_path
    assert delivery.target(tmp_path, tasks=2, number=7) == tmp_path / "7"


def test_results_appear_complete_and_twice_is_once(tmp_path, blobs, tree):
    target = tmp_path / "job/results/7"
    delivery.write(tree, blobs, target)
    delivery.write(tree, blobs, target)
    assert (target / "a.txt").read_text() == "alpha"
    assert sorted(path.name for path in target.parent.iterdir()) == ["7"]


@pytest.fixture
def synced(monkeypatch):
    """What was synced, and when a rename was made, in order."""
    seen = []
    rename = Path.rename
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(Path(f"/proc/self/fd/{fd}").readlink()))
    monkeypatch.setattr(Path, "rename", lambda one, other: (seen.append("rename"), rename(one, other))[1])
    return seen


def test_results_are_on_the_disk_before_their_rename_and_so_is_the_rename(tmp_path, blobs, tree, synced):
    target = tmp_path / "job/results/7"
    delivery.write(tree, blobs, target)
    at = synced.index("rename")
    assert [path.name for path in synced[:2]] == [tmp_path.name, "job"], "folders that were made"
    assert {path.name for path in synced[2:at]} == {"a.txt", "b.bin", "sub", "folder"}
    assert synced[at + 1 :] == [target.parent]


def test_results_that_are_there_already_may_not_be_on_the_disk_yet(tmp_path, blobs, tree, synced):
    target = tmp_path / "results/7"
    delivery.write(tree, blobs, target)
    synced.clear()
    delivery.write(tree, blobs, target)
    assert synced == [target / "sub/b.bin", target / "sub", target / "a.txt", target, target.parent]


def test_a_disk_that_fails_when_asked_says_so_and_nothing_is_in_place(tmp_path, blobs, tree, monkeypatch):
    def fsync(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "a.txt":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="Input/output error"):
        delivery.write(tree, blobs, tmp_path / "results/7")
    assert list((tmp_path / "results").iterdir()) == []


def test_earlier_results_are_moved_aside_or_left_as_one_likes(tmp_path):
    results = tmp_path / "results"
    assert delivery.move_aside(results) is None
    results.mkdir()
    assert delivery.move_aside(results, leave=True) is None
    assert results.is_dir()
    assert delivery.move_aside(results) == tmp_path / "results.~1~"
    assert not results.exists()


@pytest.mark.parametrize("spoil", ["content", "more", "file", "link", "inner-link", "longer"])
def test_something_else_in_its_place_is_moved_aside(tmp_path, blobs, tree, spoil):
    target = tmp_path / "results"
    match spoil:
        case "content":
            delivery.write(tree, blobs, target)
            (target / "sub/b.bin").write_text("mine")
        case "more":
            delivery.write(tree, blobs, target)
            (target / "sub/mine.txt").write_text("mine")
        case "inner-link":
            delivery.write(tree, blobs, target)
            (target / "sub/b.bin").unlink()
            (target / "sub/b.bin").symlink_to("../a.txt")
        case "longer":
            delivery.write(tree, blobs, target)
            (target / "a.txt").write_text("alphabet")
        case "file":
            target.write_text("mine")
        case "link":
            target.symlink_to(tmp_path)
    delivery.write(tree, blobs, target)
    assert (target / "a.txt").read_text() == "alpha"
    assert not target.is_symlink()
    assert os.path.lexists(tmp_path / "results.~1~")


def test_a_folder_that_cannot_be_written_is_said_and_nothing_half_written_stays(tmp_path, blobs, tree):
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(StorageError, match="blocked"):
        delivery.write(tree, blobs, tmp_path / "blocked/results")


def deep(blobs, source):
    """A tree whose longest path is the longest that a tree may hold: no system takes it below any folder."""
    name = "d" * 200
    source.mkdir()
    folder = os.open(source, os.O_RDONLY)
    for _ in range(20):
        os.mkdir(name, dir_fd=folder)
        below = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(os.open("f" * 70, os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    found, skipped = collect(source, TreeLimits(), blobs.put, lambda _: os.urandom(32))
    assert (len(found.files[0].path), skipped) == (20 * 201 + 70, ())
    return found


def test_the_longest_paths_that_come_back_are_written_and_known_again(tmp_path, blobs):
    found = deep(blobs, tmp_path / "source")
    target = tmp_path / "job/results"
    for _ in range(2):
        delivery.write(found, blobs, target)
    assert [path.name for path in target.parent.iterdir()] == ["results"]
    assert (
        collect(target, TreeLimits(), lambda *_: None, lambda _: os.urandom(32))[0].files[0].path == found.files[0].path
    )


def test_many_of_them(tmp_path, blobs, monkeypatch):
    monkeypatch.setattr(files, "ONE_BY_ONE", 0)
    found = deep(blobs, tmp_path / "source")
    delivery.write(found, blobs, tmp_path / "results")
    monkeypatch.setattr(files, "_syncfs", None)
    delivery.write(found, blobs, tmp_path / "results")
    assert not (tmp_path / "results.~1~").exists()


@pytest.mark.parametrize("code", [errno.ENAMETOOLONG, errno.ELOOP])
def test_a_place_that_can_never_be_written_is_no_passing_trouble(tmp_path, blobs, tree, monkeypatch, code):
    def refuse(*_args, **_options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(delivery.tempfile, "mkdtemp", refuse)
    with pytest.raises(delivery.UndeliverableError, match=f"^{tmp_path}: {os.strerror(code)}"):
        delivery.write(tree, blobs, tmp_path / "results")


@pytest.mark.parametrize("code", [errno.ENAMETOOLONG, errno.EEXIST])
def test_names_that_the_place_cannot_hold_are_no_passing_trouble(tmp_path, blobs, tree, monkeypatch, code):
    real = os.open

    def refuse(name, *args, **options):
        if name == "a.txt":
            raise OSError(code, os.strerror(code))
        return real(name, *args, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(delivery.UndeliverableError, match=r"a\.txt (exists already|is too long)"):
        delivery.write(tree, blobs, tmp_path / "out/results")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("what", ["file", "full"])
def test_trouble_is_said_in_the_same_words_each_time_and_for_each_task(tmp_path, blobs, tree, monkeypatch, what):
    """It was said for every task and every try, with the random name of what was half written."""
    if what == "file":
        (tmp_path / "results").write_text("a file")
    else:

        def full(*_args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
    said = set()
    for number in ("1", "2", "2"):
        with pytest.raises(StorageError) as raised:
            delivery.write(tree, blobs, tmp_path / "results" / number)
        said.add(str(raised.value))
    words = "Not a directory; make room or mend it" if what == "file" else "the disk is full; make room"
    assert said == {f"{tmp_path}/results: {words}"}


def test_a_full_disk_is_told_apart(tmp_path, blobs, tree, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(delivery.tempfile, "mkdtemp", full)
    with pytest.raises(DiskFullError, match="make room"):
        delivery.write(tree, blobs, tmp_path / "results")


def test_a_missing_blob_leaves_nothing_behind(tmp_path, blobs, tree):
    for path in (tmp_path / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(StorageError):
        delivery.write(tree, blobs, tmp_path / "out/results")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_a_crash_left_half_written_is_swept_and_nothing_else(tmp_path, blobs, tree):
    results = tmp_path / "results"
    delivery.write(tree, blobs, results / "1")
    dead = results / ".p2pq-abcdefg1"
    (dead / "folder").mkdir(parents=True)
    (dead / "folder/half").write_text("x")
    (results / ".p2pq-note").write_text("of the user")
    (results / ".p2pq-abcdefg2").symlink_to(results / "1")
    with delivery._staging(results) as (living, _):
        delivery.sweep(results)
        assert sorted(path.name for path in results.iterdir()) == sorted(
            [".p2pq-abcdefg2", ".p2pq-note", "1", living.name]
        )
    assert not living.exists()
    delivery.sweep(tmp_path / "nowhere")


def test_a_staging_folder_that_is_swept_at_birth_is_made_again(tmp_path, monkeypatch):
    made = []
    mkdtemp = delivery.tempfile.mkdtemp

    def swept(**options):
        made.append(mkdtemp(**options))
        if len(made) < 3:
            delivery.sweep(tmp_path)
        return made[-1]

    monkeypatch.setattr(delivery.tempfile, "mkdtemp", swept)
    with delivery._staging(tmp_path) as (staging, _):
        assert [path.name for path in tmp_path.iterdir()] == [staging.name]
    assert len(made) == 3


def test_where_files_cannot_be_locked_results_are_written_all_the_same(tmp_path, blobs, tree, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / ".p2pq-abcdefg1").mkdir()
    monkeypatch.setattr(delivery.fcntl, "flock", no_locks)
    delivery.sweep(tmp_path)
    assert (tmp_path / ".p2pq-abcdefg1").exists(), "it may be in use"
    delivery.write(tree, blobs, tmp_path / "results")
    assert (tmp_path / "results/a.txt").exists()


def test_folders_above_the_results_get_the_modes_that_their_owner_wants(blobs, tree, tmp_path):
    """The node's own umask is stricter: colleagues could read the results of each task, but not get there."""
    before = os.umask(0o077)
    try:
        delivery.write(tree, blobs, tmp_path / "job" / "results" / "3", umask=0o022)
    finally:
        os.umask(before)
    for folder in ("job", "job/results", "job/results/3", "job/results/3/sub"):
        assert (tmp_path / folder).stat().st_mode & 0o777 == 0o755, folder


def huge(files, parts):
    """A tree of files of zeros, each of which is one chunk again and again."""
    zeros = prims_chunk(bytes(PLAIN_MAX))
    part = Part(0, 0, PLAIN_MAX)
    return Tree(
        files=tuple(File(f"f{number}", False, PLAIN_MAX * parts, (part,) * parts) for number in range(files)),
        chunks=(zeros[0],),
    ), zeros


def prims_chunk(plain):
    return seal_chunk(plain, lambda _: b"k" * 32)


def test_results_beyond_the_limits_of_their_job_do_not_open(blobs):
    tree, _ = huge(200, 500)
    item = result(blobs, tree)
    assert sum(ref.size for ref in item.body) < 50_000
    with pytest.raises(Reject, match="too many bytes"):
        delivery.open_result(item, REPLY, blobs, Limits())
    with pytest.raises(Reject, match="too many bytes"):
        delivery.open_result(result(blobs, huge(1, 2)[0]), REPLY, blobs, Limits(disk_mb=7))
    assert delivery.open_result(result(blobs, huge(1, 2)[0]), REPLY, blobs, Limits(disk_mb=8))


def test_what_was_printed_is_held_to_a_limit_too(blobs):
    tree, _ = huge(1, 1024)
    printed = Tree(files=(msgspec.structs.replace(tree.files[0], path="stdout"),), chunks=tree.chunks)
    key = b"k" * 32
    refs, parts = body.encrypt(key, ResultBody(tree=Tree(), output=printed))
    item = msgspec.structs.replace(result(blobs, Tree()), body=refs)
    for ref, part in zip(refs, parts, strict=True):
        blobs.put(ref.blob, part)
    assert delivery.open_result(item, REPLY, blobs, Limits()).output == printed
    with pytest.raises(Reject, match="too many bytes"):
        delivery.open_result(item, REPLY, blobs, Limits(output_mb=512))


def test_limits_are_read_out_of_the_signed_manifest():
    event = submitted()
    assert delivery.limits_of(event.manifest) == Limits()
    with pytest.raises(Reject):
        delivery.limits_of(b"no manifest")


def test_nothing_is_written_where_it_would_not_fit(tmp_path, blobs, monkeypatch):
    tree, (chunk, ciphertext) = huge(1, 4)
    blobs.put(chunk.blob, ciphertext)
    target = tmp_path / "job/results"
    left = room.delivery_reserve(tmp_path)
    assert 0 < left <= room.DELIVERY_RESERVE_BYTES
    monkeypatch.setattr(room.files, "free_bytes", lambda _: left + 4 * PLAIN_MAX)
    with pytest.raises(DiskFullError, match="job/results would take 16 MiB, and there is room for 16 MiB"):
        delivery.write(tree, blobs, target)
    assert list(target.parent.iterdir()) == []
    monkeypatch.setattr(room.files, "free_bytes", lambda _: left + 4 * PLAIN_MAX + 4096)
    delivery.write(tree, blobs, target)
    assert (target / "f0").stat().st_size == 4 * PLAIN_MAX


def test_many_large_results_are_not_opened_at_once(blobs, monkeypatch):
    tree = Tree(dirs=tuple(Directory(os.urandom(40).hex()) for _ in range(100)))
    item = result(blobs, tree)
    inside, most = 0, 0

    def decrypt(*_):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.05)
        inside -= 1
        return ResultBody(tree=Tree(), output=Tree())

    monkeypatch.setattr(delivery.bodies, "decrypt", decrypt)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: delivery.open_result(item, REPLY, blobs, Limits()), range(6)))
    assert most == delivery.OPENING_MAX
