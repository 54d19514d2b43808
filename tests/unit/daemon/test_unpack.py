"""Trees into folders, and hostile results (security.md H57) into trees."""
# Names and descriptors as the operating system has them, not as pathlib sees them.
# ruff: noqa: PTH123, PTH208, PTH211

import errno
import os
import re
import socket
import stat
from pathlib import Path

import pytest

from p2pq.daemon import folders, packer, unpack
from p2pq.errors import DiskFullError, RefusedError, Reject, StorageError
from p2pq.wire import tree
from p2pq.wire.tree import Directory, File, Link, Part, Tree, TreeLimits

KEY_OF = tree.convergent(bytes(32))
AS_ROOT = os.geteuid() == 0
LIMITS = TreeLimits(entries_max=1000, bytes_max=1 << 20)


def write(folder: Path, found: Tree, blobs) -> Path:
    unpack.unpack(found, lambda chunk: blobs[chunk.blob], folder)
    return folder


def collect(folder: Path, limits: TreeLimits = LIMITS):
    blobs: dict = {}
    found, skipped = unpack.collect(folder, limits, blobs.__setitem__, lambda _: os.urandom(32))
    return found, skipped, blobs


def collected(folder: Path):
    """Everything that a collected folder gives back: (paths of files, skipped)."""
    found, skipped, _ = collect(folder)
    return [file.path for file in found.files], skipped


# -- unpack -------------------------------------------------------------------------------------------------------------


def test_round_trip(tmp_path):
    source = tmp_path / "source"
    (source / "a/b/c").mkdir(parents=True)
    (source / "hollow").mkdir()
    (source / "big").write_bytes(os.urandom(2 * tree.PLAIN_MAX + 7))
    (source / "a/b/c/run").write_bytes(b"#!/bin/sh\n")
    (source / "a/b/c/run").chmod(0o4755)
    (source / "empty").write_bytes(b"")
    (source / "link").symlink_to("a/b")
    for number in range(100):
        (source / f"a/{number}").write_bytes(os.urandom(5000))
    blobs: dict = {}
    found = folders.pack(source, folders.scan(source), blobs.__setitem__, KEY_OF)
    target = write(tmp_path / "target", found, blobs)
    for path in source.rglob("*"):
        other = target / path.relative_to(source)
        if path.is_symlink():
            assert other.readlink() == path.readlink()
        elif path.is_dir():
            assert other.is_dir()
        else:
            assert other.read_bytes() == path.read_bytes()
    assert len(list(source.rglob("*"))) == len(list(target.rglob("*")))


def test_only_two_modes(tmp_path):
    old = os.umask(0o022)
    try:
        write(tmp_path, Tree(files=(File("d/x", True, 0, ()), File("d/y", False, 0, ()))), {})
    finally:
        os.umask(old)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("d", "d/x", "d/y")]
    assert modes == [0o755, 0o755, 0o644]


def test_descriptor_as_destination(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        unpack.unpack(Tree(files=(File("x", False, 0, ()),)), lambda _: b"", descriptor)
        os.fstat(descriptor)  # still open
    finally:
        os.close(descriptor)
    assert (tmp_path / "x").exists()


def test_many_folders_need_few_descriptors(tmp_path):
    files = tuple(File(f"{n}/{n}/x", False, 0, ()) for n in range(200))
    deep = File("/".join("d" * 120) + "/x", False, 0, ())
    before = len(os.listdir("/proc/self/fd"))
    write(tmp_path, Tree(files=(*files, deep, *(File(f"{n}/{n}/y", False, 0, ()) for n in range(200)))), {})
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(list(tmp_path.rglob("[xy]"))) == 401


def test_interleaved_files_share_chunks(tmp_path):
    """Parts may come from any chunk in any order; each chunk is read once."""
    plain = os.urandom(100)
    sealed = [tree.seal_chunk(plain[n : n + 50], KEY_OF) for n in (0, 50)]
    blobs = {chunk.blob: ciphertext for chunk, ciphertext in sealed}
    found = Tree(
        files=(
            File("a", False, 30, (Part(0, 0, 10), Part(1, 0, 10), Part(0, 10, 10))),
            File("b", False, 20, (Part(1, 40, 10), Part(0, 40, 10))),
        ),
        chunks=tuple(chunk for chunk, _ in sealed),
    )
    tree.check_tree(found, LIMITS)
    read = []
    unpack.unpack(found, lambda chunk: read.append(chunk.blob) or blobs[chunk.blob], tmp_path)
    assert sorted(read) == sorted(blobs)
    assert (tmp_path / "a").read_bytes() == plain[:10] + plain[50:60] + plain[10:20]
    assert (tmp_path / "b").read_bytes() == plain[90:100] + plain[40:50]


@pytest.mark.parametrize("content", [b"", b"mine"])
def test_nothing_is_overwritten(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    for found in (Tree(files=(File("x", False, 0, ()),)), Tree(links=(Link("x", "y"),)), Tree(dirs=(Directory("x"),))):
        with pytest.raises(RefusedError, match="x exists already"):
            write(tmp_path, found, {})
    assert (tmp_path / "x").read_bytes() == content


def test_symlinks_in_the_way_are_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "d").symlink_to("../outside")
    (target / "f").symlink_to("../outside/f")
    for path in ("d/x", "f"):
        with pytest.raises(RefusedError):
            write(target, Tree(files=(File(path, False, 0, ()),)), {})
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(tmp_path, monkeypatch, code):
    chunk, ciphertext = tree.seal_chunk(b"x" * 100, KEY_OF)

    def full(*_args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(unpack.os, "pwrite", full)
    found = Tree(files=(File("x", False, 100, (Part(0, 0, 100),)),), chunks=(chunk,))
    with pytest.raises(DiskFullError, match="x could not be written"):
        write(tmp_path, found, {chunk.blob: ciphertext})


def test_short_writes_go_on(tmp_path, monkeypatch):
    chunk, ciphertext = tree.seal_chunk(bytes(range(100)), KEY_OF)
    real = os.pwrite
    monkeypatch.setattr(unpack.os, "pwrite", lambda fd, data, at: real(fd, data[:7], at))
    found = Tree(files=(File("x", False, 100, (Part(0, 0, 100),)),), chunks=(chunk,))
    write(tmp_path, found, {chunk.blob: ciphertext})
    assert (tmp_path / "x").read_bytes() == bytes(range(100))


def test_destination_that_is_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(RefusedError):
        write(tmp_path / "x", Tree(), {})
    with pytest.raises(StorageError):
        write(Path("/proc/none"), Tree(), {})


def test_hostile_blob_is_refused(tmp_path):
    chunk, ciphertext = tree.seal_chunk(b"x" * 100, KEY_OF)
    found = Tree(files=(File("x", False, 100, (Part(0, 0, 100),)),), chunks=(chunk,))
    with pytest.raises(Reject):
        write(tmp_path, found, {chunk.blob: ciphertext[:-1] + b"\0"})


def test_h54_odd_names_travel(tmp_path):
    odd = ["new\nline", "esc\x1b[31m", "\u202etxt", "e\u0301", "\u00e9", "X", "x", "con.txt", "..\\", "dot.", "sp "]
    write(tmp_path, Tree(files=tuple(File(path, False, 0, ()) for path in odd)), {})
    assert sorted(os.listdir(tmp_path)) == sorted(odd)


# -- collect ------------------------------------------------------------------------------------------------------------


def test_collect_round_trip(tmp_path):
    source = tmp_path / "results"
    (source / "d/e").mkdir(parents=True)
    (source / "hollow").mkdir()
    (source / "d/e/x").write_bytes(b"x" * 1000)
    (source / "big").write_bytes(os.urandom(400_000))
    (source / "d/run").write_bytes(b"")
    (source / "d/run").chmod(0o700)
    (source / "d/link").symlink_to("e/x")
    found, skipped, blobs = collect(source)
    assert skipped == ()
    assert found.dirs == (Directory("hollow"),)
    assert found.links == (Link("d/link", "e/x"),)
    target = write(tmp_path / "target", found, blobs)
    assert (target / "big").read_bytes() == (source / "big").read_bytes()
    assert (target / "d/link").read_bytes() == b"x" * 1000
    assert os.access(target / "d/run", os.X_OK)


def test_missing_results_are_an_empty_tree(tmp_path):
    assert collect(tmp_path / "results")[:2] == (Tree(), ())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("out", "is a link now, not a folder"),
        ("inside", "is a link now, not a folder"),
        ("file", "is a file now, not a folder"),
        ("fifo", "is no folder any more"),
    ],
)
def test_h57_results_that_are_no_folder(tmp_path, kind, reason):
    """Nothing of it is followed, and the task is told so: it must not count as one without results."""
    results = tmp_path / "results"
    match kind:
        case "out":
            results.symlink_to("/etc")
        case "inside":
            (tmp_path / "out").mkdir()
            (tmp_path / "out/o").write_text("data")
            results.symlink_to("out")
        case "file":
            results.write_bytes(b"x")
        case _:
            os.mkfifo(results)
    with pytest.raises(unpack.ReplacedError, match=f"results {reason}"):
        collect(results)


def test_h57_symlinks_that_leave(tmp_path):
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    (tmp_path / "etc").symlink_to("/etc")
    (tmp_path / "up").symlink_to("../..")
    (tmp_path / "in").symlink_to("ok")
    (tmp_path / "through").symlink_to("in/x")
    (tmp_path / "ok").write_bytes(b"")
    with_surrogate = os.fsencode(tmp_path) + b"/raw"
    os.symlink(b"\xff", with_surrogate)
    found, skipped, _ = collect(tmp_path)
    assert [link.path for link in found.links] == ["in"]
    assert [line.partition(":")[0] for line in skipped] == ["etc", "passwd", "raw", "through", "up"]


def test_h57_pipe_socket_setuid_and_hard_link(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
    (tmp_path / "setuid").write_bytes(b"x")
    (tmp_path / "setuid").chmod(0o6755)
    os.link(tmp_path / "setuid", tmp_path / "twin")
    found, skipped, blobs = collect(tmp_path)
    assert [(file.path, file.executable) for file in found.files] == [("setuid", True), ("twin", True)]
    assert [line.partition(":")[0] for line in skipped] == ["pipe", "sock"]
    target = write(tmp_path / "target", found, blobs)
    assert not (target / "setuid").stat().st_mode & stat.S_ISUID


@pytest.mark.skipif(not AS_ROOT, reason="needs root to make a device")
def test_h57_device(tmp_path):
    os.mknod(tmp_path / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    assert collected(tmp_path) == ([], ("zero: is a pipe, a socket or a device",))


def test_h57_hard_link_to_a_file_of_someone_else(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"secret")
    os.link(tmp_path / "x", tmp_path / "y")
    (tmp_path / "own").write_bytes(b"")
    owner = os.geteuid()
    monkeypatch.setattr(unpack.os, "geteuid", lambda: owner + 1)
    files, skipped = collected(tmp_path)
    assert files == ["own"]
    assert all("hard link" in line for line in skipped)


def test_h57_sparse_terabyte_dies_at_the_cap(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Reject, match="too many bytes"):
        collect(tmp_path)


def test_h57_many_files_die_at_the_cap(tmp_path):
    for number in range(101):
        (tmp_path / f"{number}").write_bytes(b"")
    assert collect(tmp_path, TreeLimits(entries_max=101))
    with pytest.raises(Reject, match="too many files"):
        collect(tmp_path, TreeLimits(entries_max=100))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/x").write_bytes(b"")
    with pytest.raises(Reject, match="too many files"):
        collect(tmp_path, TreeLimits(entries_max=102))


def test_h57_undecodable_name(tmp_path):
    with open(os.fsencode(tmp_path) + b"/bad\xff\x1b", "wb"):
        pass
    assert collected(tmp_path) == ([], ("bad\ufffd\ufffd: a name is not UTF-8",))


@pytest.mark.parametrize("size", [100, 400_000])
def test_h57_file_that_changes_while_it_is_read(tmp_path, monkeypatch, size):
    (tmp_path / "a").write_bytes(bytes(size))
    monkeypatch.setattr(packer, "changed", lambda *_: True)
    assert collected(tmp_path) == ([], ("a: changed while it was read",))


def test_h57_file_that_turns_into_a_pipe(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    real = os.stat
    monkeypatch.setattr(unpack.os, "stat", lambda _name, **options: real("a", **options))
    files, skipped = collected(tmp_path)
    assert files == ["a"]
    assert skipped == ("pipe: is no regular file any more",)


def closed(results: Path) -> Path:
    """Leave what its own owner may not read, at every place."""
    (results / "d/e").mkdir(parents=True)
    (results / "d/e/x").write_text("deep")
    (results / "secret").write_text("flat")
    (results / "run").write_text("#!")
    (results / "hollow").mkdir()
    (results / "run").chmod(0o111)
    for path in ("secret", "hollow", "d/e/x", "d/e", "d", "."):
        (results / path).chmod(0)
    return results


def test_h57_what_the_task_closed_is_opened_and_comes_back(tmp_path):
    found, skipped, blobs = collect(closed(tmp_path / "results"))
    assert skipped == ()
    target = write(tmp_path / "target", found, blobs)
    assert (target / "d/e/x").read_text() == "deep"
    assert (target / "secret").read_text() == "flat"
    assert (target / "hollow").is_dir()
    assert [os.access(target / name, os.X_OK) for name in ("d/e/x", "run")] == [False, True]


def test_h57_what_belongs_to_somebody_else_stays_closed(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("secret")
    (tmp_path / "x").chmod(0)
    (tmp_path / "d").mkdir(mode=0)
    owner = os.geteuid()
    monkeypatch.setattr(unpack.os, "geteuid", lambda: owner + 1)
    reason = "belongs to someone else and cannot be read"
    assert collected(tmp_path) == ([], (f"d: {reason}", f"x: {reason}"))
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.ESTALE])
@pytest.mark.parametrize("call", ["open", "stat", "scandir", "readlink"])
def test_h57_trouble_of_this_machine_is_no_skipped_entry(tmp_path, monkeypatch, code, call):
    """Results that are not complete must never count as such."""
    (tmp_path / "x").write_bytes(b"x")
    (tmp_path / "link").symlink_to("x")
    real = getattr(os, call)

    def fail(what, *args, **options):
        if call == "scandir" or what in {"x", "link"}:
            raise OSError(code, os.strerror(code))
        return real(what, *args, **options)

    monkeypatch.setattr(unpack.os, call, fail)
    with pytest.raises(OSError, match=re.escape(os.strerror(code))):
        collect(tmp_path)


def test_h57_a_disk_that_fails_while_a_file_is_read_is_no_skipped_entry(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"x" * 100)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(packer, "read_exactly", fail)
    with pytest.raises(OSError, match="Input/output"):
        collect(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ELOOP, errno.ENOTDIR])
def test_h57_entry_that_is_gone(tmp_path, monkeypatch, code):
    (tmp_path / "x").write_bytes(b"")

    def gone(*_args, **_options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(unpack.os, "stat", gone)
    assert collected(tmp_path) == ([], ("x: changed while it was read",))


def test_h57_too_deep(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    found, skipped, _ = collect(tmp_path)
    assert found.dirs == (Directory("/".join("d" * 128)),)
    assert skipped[0].endswith("a path is too deep")


def test_skipped_entries_are_bounded(tmp_path):
    for number in range(150):
        os.mkfifo(tmp_path / f"{number}")
    _, skipped, _ = collect(tmp_path)
    assert len(skipped) == 100
    assert skipped[-1] == "and 51 more entries skipped"


# -- rotate_results -----------------------------------------------------------------------------------------------------


def test_rotate_nothing(tmp_path):
    assert unpack.rotate_results(tmp_path) is None


def test_rotate_takes_the_next_number(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / "results").mkdir()
        assert unpack.rotate_results(tmp_path) == tmp_path / f"results.~{number}~"
    (tmp_path / "results.~1~").rmdir()
    (tmp_path / "results.~2~").rmdir()
    (tmp_path / "results.~x~").mkdir()
    (tmp_path / "results").write_bytes(b"a file")
    assert unpack.rotate_results(tmp_path) == tmp_path / "results.~4~"
    assert (tmp_path / "results.~4~").read_bytes() == b"a file"


def test_rotate_dangling_symlink_and_other_name(tmp_path):
    (tmp_path / "out").symlink_to("nowhere")
    assert unpack.rotate_results(tmp_path, "out") == tmp_path / "out.~1~"


def test_rotate_that_fails(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unpack.Path, "rename", full)
    with pytest.raises(DiskFullError):
        unpack.rotate_results(tmp_path)


def test_what_is_not_wanted_is_left_behind_unmentioned_and_not_counted(tmp_path):
    for name in ("a", "b", "c/b", "b2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    os.mkfifo(tmp_path / "pipe")
    limits = TreeLimits(entries_max=2, bytes_max=10)
    wanted = {"b", "c"}.__contains__
    found, skipped = unpack.collect(tmp_path, TreeLimits(entries_max=3), lambda *_: None, KEY_OF, wanted)
    assert ([file.path for file in found.files], skipped) == (["b", "c/b"], ())
    with pytest.raises(Reject, match="too many"):
        unpack.collect(tmp_path, limits, lambda *_: None, KEY_OF, wanted)
