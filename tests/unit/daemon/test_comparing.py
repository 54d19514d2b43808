"""Folders that are, are not, or may be what a tree says."""

import os
from pathlib import Path

import pytest

from p2pq.daemon.comparing import Compared, compare
from p2pq.daemon.unpack import collect
from p2pq.wire import prims
from p2pq.wire.tree import Tree, TreeLimits

FILES = {"a.txt": b"alpha" * 50, "sub/b.bin": os.urandom(2000), "sub/c.txt": b"gamma" * 400, "empty": b""}


class Delivered:
    """A folder, the tree that it was, and the blobs that tree was cut into."""

    def __init__(self, folder: Path, files: dict[str, bytes]) -> None:
        self.folder = folder
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (folder / "link").symlink_to("a.txt")
        self.blobs: dict[bytes, bytes] = {}
        self.tree, _ = collect(folder, TreeLimits(), self.blobs.__setitem__, lambda _: os.urandom(32))

    def now(self) -> Compared:
        """Compare; with the blobs and without them the same must come out."""
        return compare(self.tree, self.folder, self.blobs.get)

    def without_blobs(self) -> Compared:
        return compare(self.tree, self.folder, lambda _: None)


@pytest.fixture
def there(tmp_path):
    return Delivered(tmp_path / "results", FILES)


def test_an_untouched_folder(there):
    assert there.now() == there.without_blobs() == Compared(same=5)
    (there.folder / "more").write_text("of what nobody signed")
    assert there.now() == Compared(same=5)
    assert compare(Tree(), there.folder, there.blobs.get) == Compared()


def test_a_file_that_was_altered(there):
    data = FILES["sub/b.bin"]
    (there.folder / "sub/b.bin").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert there.now() == Compared(same=4, differs=("sub/b.bin",))
    found = there.without_blobs()
    assert found.differs == (), "who packed it may have packed otherwise"
    assert set(found.unsure) >= {"sub/b.bin"}
    assert found.same + len(found.unsure) == 5


@pytest.mark.parametrize("content", [FILES["a.txt"] + b"x", b"", FILES["a.txt"][:-1]])
def test_a_file_of_another_size_needs_no_blob(there, content):
    (there.folder / "a.txt").write_bytes(content)
    assert there.now() == Compared(same=4, differs=("a.txt",))
    assert there.without_blobs().differs == ("a.txt",)


def test_what_is_no_file_any_more(there):
    for name in ("a.txt", "sub/c.txt"):
        (there.folder / name).unlink()
    (there.folder / "a.txt").mkdir()
    (there.folder / "elsewhere").write_bytes(FILES["sub/c.txt"])
    (there.folder / "sub/c.txt").symlink_to("../elsewhere")
    assert there.now() == Compared(same=3, differs=("a.txt", "sub/c.txt"))


def test_what_is_gone(there):
    (there.folder / "a.txt").unlink()
    (there.folder / "link").unlink()
    (there.folder / "sub").rename(there.folder / "other")
    (there.folder / "sub").touch()
    assert there.now() == Compared(same=1, gone=("a.txt", "sub/b.bin", "sub/c.txt", "link"))


@pytest.mark.parametrize("how", ["file", "elsewhere"])
def test_a_link_that_leads_elsewhere(there, how):
    (there.folder / "link").unlink()
    if how == "file":
        (there.folder / "link").write_bytes(b"")
    else:
        (there.folder / "link").symlink_to("empty")
    assert there.now() == Compared(same=4, differs=("link",))


@pytest.mark.skipif(os.geteuid() == 0, reason="needs an ordinary user: root reads everything")
def test_what_cannot_be_read(there):
    (there.folder / "a.txt").chmod(0)
    assert there.now() == Compared(same=4, unsure=("a.txt",))
    (there.folder / "sub").chmod(0)
    try:
        assert set(there.now().unsure) == {"a.txt", "sub/b.bin", "sub/c.txt"}
    finally:
        (there.folder / "sub").chmod(0o700)


def test_a_file_that_vanishes_or_shrinks_while_it_is_read(there, monkeypatch):
    path = there.folder / "a.txt"
    info = path.lstat()
    usual = Path.lstat
    monkeypatch.setattr(Path, "lstat", lambda self: info if self == path else usual(self))
    path.write_bytes(b"short")
    assert there.now() == Compared(same=4, differs=("a.txt",))
    assert "a.txt" in there.without_blobs().unsure
    path.unlink()
    assert there.now() == Compared(same=4, unsure=("a.txt",))
    assert "a.txt" in there.without_blobs().unsure
    monkeypatch.setattr(
        Path, "lstat", lambda self: (_ for _ in ()).throw(PermissionError()) if self == path else usual(self)
    )
    assert there.now() == Compared(same=4, unsure=("a.txt",))


def test_a_blob_that_is_not_what_the_tree_says_proves_nothing_by_itself(there):
    chunks = {chunk.blob for chunk in there.tree.chunks}
    assert compare(there.tree, there.folder, lambda blob: b"junk" if blob in chunks else None) == Compared(same=5)


def test_large_files_are_compared_chunk_by_chunk(tmp_path):
    content = os.urandom(9 << 20)
    there = Delivered(tmp_path / "results", {"large": content, "a.txt": b"x"})
    assert len(there.tree.chunks) > 3
    assert there.now() == there.without_blobs() == Compared(same=3)
    (there.folder / "large").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert there.now() == Compared(same=2, differs=("large",))
    assert there.without_blobs() == Compared(same=2, unsure=("large",))
    gone = prims.blob_id(there.blobs[there.tree.chunks[0].blob])
    del there.blobs[gone]
    assert there.now() == Compared(same=2, differs=("large",)), "one piece that differs is enough"
