"""Files and folders that go along with a submitted one."""

import os

import pytest

from p2pq.daemon import additions, folders
from p2pq.daemon.additions import Brought
from p2pq.errors import UsageError
from p2pq.wire.tree import Tree, TreeLimits, check_tree, read_part


class Bench:
    def __init__(self, path) -> None:
        self.path = path
        self.blobs: dict[bytes, bytes] = {}
        self.folder = path / "job"
        self.folder.mkdir()
        (self.folder / "main.py").write_text("main")

    def sink(self, blob: bytes, ciphertext: bytes) -> None:
        self.blobs[blob] = ciphertext

    def key_of(self, _data: bytes) -> bytes:
        return os.urandom(32)

    @property
    def tree(self) -> Tree:
        return folders.pack(self.folder, folders.scan(self.folder), self.sink, self.key_of)

    def contents(self, tree: Tree) -> dict[str, bytes]:
        check_tree(tree, TreeLimits())
        return {
            file.path: b"".join(read_part(tree, part, self.blobs.__getitem__) for part in file.parts)
            for file in tree.files
        }


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_a_folder_from_elsewhere_is_whole_with_its_links_and_empty_folders(bench):
    other = bench.path / "other"
    (other / "lib/empty").mkdir(parents=True)
    (other / "lib/a.so").write_text("a")
    (other / "lib/.gitignore").write_text("*")
    (other / "lib/b.so").symlink_to("a.so")
    tree = additions.with_folder(bench.tree, Brought(other, ".p2pq/x"), bench.sink, bench.key_of)
    found = bench.contents(tree)
    assert found == {"main.py": b"main", ".p2pq/x/lib/a.so": b"a", ".p2pq/x/lib/.gitignore": b"*"}
    assert [(link.path, link.target) for link in tree.links] == [(".p2pq/x/lib/b.so", "a.so")]
    assert [folder.path for folder in tree.dirs] == [".p2pq/x/lib/empty"]


def test_a_file_from_elsewhere_is_in_the_tree_whatever_it_is_called(bench):
    data = bench.path / ".gitignore"
    data.write_text("*")
    tree = additions.with_file(bench.tree, data, ".p2pq/data", bench.sink, bench.key_of)
    assert bench.contents(tree) == {"main.py": b"main", ".p2pq/data": b"*"}


def test_a_config_file_is_taken_from_the_folder_or_along(bench):
    tree = bench.tree
    assert additions.with_config(tree, bench.folder, bench.folder / "main.py", bench.sink, bench.key_of) == (
        "main.py",
        tree,
    )
    outside = bench.path / "a.toml"
    outside.write_text("x = 1")
    path, more = additions.with_config(tree, bench.folder, outside, bench.sink, bench.key_of)
    assert (path, bench.contents(more)["a.toml"]) == ("a.toml", b"x = 1")
    with pytest.raises(UsageError, match="is not a file"):
        additions.with_config(tree, bench.folder, bench.path / "missing", bench.sink, bench.key_of)
    (bench.path / "main.py").write_text("another")
    with pytest.raises(UsageError, match=r"has a main\.py of its own"):
        additions.with_config(tree, bench.folder, bench.path / "main.py", bench.sink, bench.key_of)
