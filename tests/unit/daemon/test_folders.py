"""A submitted folder: what cannot travel is said in one sentence; what can is packed."""
# Names and descriptors as the operating system has them, not as pathlib sees them.
# ruff: noqa: PTH118, PTH123

import os
import socket
import stat
from pathlib import Path

import lz4.block
import pytest

from p2pq.daemon import folders, packer
from p2pq.errors import UsageError
from p2pq.wire import tree
from p2pq.wire.tree import Directory, Link

KEY_OF = tree.convergent(bytes(32))
AS_ROOT = os.geteuid() == 0


class Blobs(dict):
    """A sink that remembers every blob, and how often each came."""

    def __call__(self, blob, ciphertext):
        assert blob not in self
        self[blob] = ciphertext


def fill(root: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def content(found, blobs):
    plain = [tree.open_chunk(chunk, blobs[chunk.blob]) for chunk in found.chunks]
    return {
        file.path: b"".join(plain[p.chunk][p.offset : p.offset + p.length] for p in file.parts) for file in found.files
    }


def packed(root: Path, **options):
    blobs = Blobs()
    return folders.pack(root, folders.scan(root, **options), blobs, KEY_OF), blobs


# -- scan ---------------------------------------------------------------------------------------------------------------


def test_scan_lists_sorted_entries(tmp_path):
    fill(tmp_path, main_dot_py=b"1", d__x=b"22", results__old=b"3", _dot_git__config=b"")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "link").symlink_to("d/x")
    found = folders.scan(tmp_path)
    assert [(entry.path, entry.kind) for entry in found.entries] == [
        ("d", "dir"), ("d/x", "file"), ("hollow", "dir"), ("link", "link"), ("main.py", "file"),
    ]  # fmt: skip
    assert found.size == 3
    assert found.warnings == ()


def test_scan_follows_the_folder_itself_if_it_is_a_symlink(tmp_path):
    fill(tmp_path / "real", main_dot_py=b"")
    (tmp_path / "alias").symlink_to("real")
    assert [entry.path for entry in folders.scan(tmp_path / "alias").entries] == ["main.py"]
    assert [file.path for file in packed(tmp_path / "alias")[0].files] == ["main.py"]


def test_missing_folder(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        folders.scan(tmp_path / "none")


def test_not_a_folder(tmp_path):
    fill(tmp_path, file=b"")
    with pytest.raises(UsageError, match="is not a folder"):
        folders.scan(tmp_path / "file")


def test_empty_folder(tmp_path):
    fill(tmp_path, results__x=b"")
    (tmp_path / "sub").mkdir()
    with pytest.raises(UsageError, match="holds no file"):
        folders.scan(tmp_path)


def test_everything_excluded_is_empty(tmp_path):
    fill(tmp_path, main_dot_py=b"")
    with pytest.raises(UsageError, match="holds no file"):
        folders.scan(tmp_path, ["*"])


@pytest.mark.skipif(AS_ROOT, reason="needs an ordinary user: root reads everything")
def test_unreadable_file_and_folder(tmp_path):
    fill(tmp_path, secret=b"x", d__y=b"")
    (tmp_path / "secret").chmod(0)
    with pytest.raises(UsageError, match="secret cannot be read"):
        folders.scan(tmp_path)
    (tmp_path / "secret").unlink()
    (tmp_path / "d").chmod(0)
    with pytest.raises(UsageError, match="d cannot be read"):
        folders.scan(tmp_path)
    (tmp_path / "d").chmod(0o755)


def test_unreadable_file_is_named_whoever_asks(tmp_path, monkeypatch):
    fill(tmp_path, secret=b"x")
    monkeypatch.setattr(folders.os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="secret cannot be read; change its permissions"):
        folders.scan(tmp_path)


def test_socket_and_fifo_are_named(tmp_path):
    fill(tmp_path, main_dot_py=b"")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="pipe is a named pipe"):
        folders.scan(tmp_path)
    assert folders.scan(tmp_path, ["pipe"])
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path may be 107 bytes long at most
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
        with pytest.raises(UsageError, match="sock is a socket"):
            folders.scan(tmp_path)


@pytest.mark.skipif(not AS_ROOT, reason="needs root to make a device")
def test_device_is_named(tmp_path):
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with pytest.raises(UsageError, match="null is a device"):
        folders.scan(tmp_path)


def test_names_that_cannot_travel(tmp_path):
    fill(tmp_path, main_dot_py=b"")
    with open(os.path.join(os.fsencode(tmp_path), b"bad\xff"), "wb"):
        pass
    with pytest.raises(UsageError, match="bad\ufffd: a name is not UTF-8"):
        folders.scan(tmp_path)


def test_odd_names_travel_with_a_warning(tmp_path):
    (tmp_path / "new\nline").write_bytes(b"")
    found = folders.scan(tmp_path)
    assert found.warnings == ("new\ufffdline: holds a control character",)
    assert found.entries[0].path == "new\nline"


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "missing/../../x"])
def test_symlinks_that_leave_are_named(tmp_path, target):
    fill(tmp_path, main_dot_py=b"")
    (tmp_path / "way").symlink_to(target)
    with pytest.raises(UsageError, match="way: a symlink"):
        folders.scan(tmp_path)
    assert folders.scan(tmp_path, ["way"])


def test_ignore_files_count(tmp_path):
    fill(tmp_path, _dot_gitignore=b"*.o\nbuild/\n", a_dot_o=b"", build__x=b"", d__a_dot_o=b"", keep=b"")
    fill(tmp_path, d___dot_gitignore=b"!a.o\n", _dot_p2pqignore=b"secret\n", secret=b"")
    assert [entry.path for entry in folders.scan(tmp_path).entries if entry.kind == "file"] == [
        ".gitignore", "d/.gitignore", "d/a.o", "keep",
    ]  # fmt: skip


def test_unreadable_ignore_file_is_named(tmp_path, monkeypatch):
    fill(tmp_path, _dot_gitignore=b"", main_dot_py=b"")

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(folders.Path, "open", refuse)
    with pytest.raises(UsageError, match="gitignore cannot be read"):
        folders.scan(tmp_path)


def test_h55_too_many_files(tmp_path, monkeypatch):
    fill(tmp_path, a=b"", b=b"", c=b"")
    monkeypatch.setattr(folders, "ENTRIES_MAX", 2)
    with pytest.raises(UsageError, match="more than 2 files"):
        folders.scan(tmp_path)


# -- pack ---------------------------------------------------------------------------------------------------------------


def test_pack_holds_everything(tmp_path):
    big = os.urandom(tree.PLAIN_MAX + 5)
    fill(tmp_path, main_dot_py=b"print()", empty=b"", d__x=b"x" * 1000, big=big)
    (tmp_path / "main.py").chmod(0o700)
    (tmp_path / "hollow" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("d/x")
    os.link(tmp_path / "d/x", tmp_path / "hard")
    found, blobs = packed(tmp_path)
    assert content(found, blobs) == {
        "main.py": b"print()", "empty": b"", "d/x": b"x" * 1000, "hard": b"x" * 1000, "big": big,
    }  # fmt: skip
    assert [file.path for file in found.files if file.executable] == ["main.py"]
    assert found.dirs == (Directory("hollow/inner"),)
    assert found.links == (Link("link", "d/x"),)
    assert blobs.keys() == {chunk.blob for chunk in found.chunks}
    assert tree.decode_tree(tree.encode_tree(found), tree.TreeLimits()) == found


def test_h58_a_tar_is_inert_data(tmp_path):
    """The archive of CVE-2025-4517 is a file like any other: nothing here reads archives."""
    evil = b"../../../../etc/passwd".ljust(512, b"\0") + bytes(1024)
    fill(tmp_path, evil_dot_tar=evil)
    found, blobs = packed(tmp_path)
    assert content(found, blobs) == {"evil.tar": evil}


def test_equal_content_is_sent_once(tmp_path):
    data = os.urandom(300_000)
    fill(tmp_path, a=data, b=data)
    found, blobs = packed(tmp_path)
    assert len(blobs) == len(found.chunks) == 1
    assert content(found, blobs) == {"a": data, "b": data}


def test_content_that_equals_other_content_compressed(tmp_path):
    """Both encrypt to one blob, once as lz4 and once as raw data; each must come back as itself."""
    plain = b"".join(os.urandom(100 + n % 100) + bytes(20) for n in range(3000))
    inner = lz4.block.compress(plain, store_size=False)
    assert len(inner) < len(plain)
    assert len(lz4.block.compress(inner, store_size=False)) >= len(inner) > packer.SMALL
    fill(tmp_path, a=plain, b=inner)
    blobs = {}
    found = folders.pack(tmp_path, folders.scan(tmp_path), blobs.__setitem__, KEY_OF)
    assert len(blobs) == 1
    assert content(found, blobs) == {"a": plain, "b": inner}


def test_one_changed_file_sends_one_pack_again(tmp_path, monkeypatch):
    monkeypatch.setattr(packer, "PACK_MIN", 256 << 10)
    for number in range(300):
        fill(tmp_path, **{f"f{number:03}": os.urandom(10_000)})
    before, _ = packed(tmp_path)
    assert 4 <= len(before.chunks) <= 20
    for path in (tmp_path / "f150", tmp_path / "f150x"):
        path.write_bytes(os.urandom(11_000))
        after, _ = packed(tmp_path)
        new = {chunk.blob for chunk in after.chunks} - {chunk.blob for chunk in before.chunks}
        assert 1 <= len(new) <= 2
        before = after


def test_packs_stay_small(tmp_path, monkeypatch):
    monkeypatch.setattr(packer, "_BOUNDARY_MASK", 0xFFFFFFFF)  # no path closes a pack
    for number in range(30):
        fill(tmp_path, **{f"f{number:03}": os.urandom(200_000)})
    found, _ = packed(tmp_path)
    assert max(chunk.length for chunk in found.chunks) <= packer.PACK_MAX


def test_sparse_file(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(40 << 20)
    found, blobs = packed(tmp_path)
    assert found.files[0].size == 40 << 20
    assert sum(map(len, blobs.values())) < 1 << 20


def changing(monkeypatch, path, times):
    """Make a file grow between the two looks at it, so many times."""
    real = packer.changed
    left = [times]

    def hook(before, after):
        if before.st_ino == path.stat().st_ino and left[0]:
            left[0] -= 1
            return True
        return real(before, after)

    monkeypatch.setattr(packer, "changed", hook)


@pytest.mark.parametrize("size", [100, 300_000])
def test_a_file_that_changes_once_is_read_again(tmp_path, monkeypatch, size):
    data = os.urandom(size)
    fill(tmp_path, a=b"first", log=data)
    changing(monkeypatch, tmp_path / "log", 1)
    found, blobs = {}, {}
    found = folders.pack(tmp_path, folders.scan(tmp_path), blobs.__setitem__, KEY_OF)
    assert content(found, blobs) == {"a": b"first", "log": data}


@pytest.mark.parametrize("size", [100, 300_000])
def test_a_file_that_keeps_changing_is_named(tmp_path, monkeypatch, size):
    fill(tmp_path, log=bytes(size))
    changing(monkeypatch, tmp_path / "log", 2)
    with pytest.raises(UsageError, match="log changes while it is read"):
        packed(tmp_path)


def test_a_file_that_shrinks_is_named(tmp_path, monkeypatch):
    fill(tmp_path, log=bytes(1000))
    real = os.read
    monkeypatch.setattr(packer.os, "read", lambda fd, size: real(fd, min(size, 600))[:600])
    found, blobs = packed(tmp_path)  # short reads alone are no change
    assert content(found, blobs) == {"log": bytes(1000)}
    monkeypatch.setattr(packer.os, "read", lambda _fd, size: bytes(10) if size == 1000 else b"")
    with pytest.raises(UsageError, match="log changes while it is read"):
        packed(tmp_path)


def test_a_file_that_goes_is_named(tmp_path):
    fill(tmp_path, a=b"", b=b"")
    found = folders.scan(tmp_path)
    (tmp_path / "b").unlink()
    with pytest.raises(UsageError, match="b cannot be read: No such file"):
        folders.pack(tmp_path, found, Blobs(), KEY_OF)


def test_a_file_that_turns_into_something_else_is_named(tmp_path):
    fill(tmp_path, a=b"")
    found = folders.scan(tmp_path)
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    with pytest.raises(UsageError, match="a is no longer a file"):
        folders.pack(tmp_path, found, Blobs(), KEY_OF)


def test_what_a_sink_raises_comes_out(tmp_path):
    fill(tmp_path, a=b"x")

    def full(_blob, _ciphertext):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folders.pack(tmp_path, folders.scan(tmp_path), full, KEY_OF)


def test_tree_that_receivers_would_refuse_is_refused_here(tmp_path, monkeypatch):
    fill(tmp_path, a=b"xx")
    monkeypatch.setattr(folders, "TreeLimits", lambda: tree.TreeLimits(bytes_max=1))
    with pytest.raises(UsageError, match="too many bytes"):
        packed(tmp_path)


# -- find_main ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "main"),
    [
        (["main.py", "main_a.py", "main.sh"], "main.py"),
        (["main_a.py", "main.sh"], "main_a.py"),
        (["main.sh", "main"], "main.sh"),
        (["main", "other.py"], "main"),
    ],
)
def test_find_main(tmp_path, files, main):
    for name in files:
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o755)
    assert folders.find_main(tmp_path) == main


def test_main_option_decides(tmp_path):
    fill(tmp_path, main_dot_py=b"", d__run_dot_py=b"")
    assert folders.find_main(tmp_path, "d/run.py") == "d/run.py"
    with pytest.raises(UsageError, match="there is no file gone"):
        folders.find_main(tmp_path, "gone")
    with pytest.raises(UsageError, match="--main"):
        folders.find_main(tmp_path, "../x")


def test_two_mains_or_none(tmp_path):
    fill(tmp_path, main=b"not executable")
    with pytest.raises(UsageError, match="--main FILE"):
        folders.find_main(tmp_path)
    fill(tmp_path, main_a_dot_py=b"", main_b_dot_py=b"")
    with pytest.raises(UsageError, match=r"main_a\.py, main_b\.py.*--main FILE"):
        folders.find_main(tmp_path)
