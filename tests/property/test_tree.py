"""security.md 5.2: names stay below the root, any mutation of a chunk is refused, folders come back equal."""
# Names and descriptors as the operating system has them, not as pathlib sees them.
# ruff: noqa: PTH208

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pq.daemon import folders, unpack
from p2pq.errors import Reject
from p2pq.wire import names, tree
from p2pq.wire.tree import Chunk, Directory, File, Link, Part, Tree, TreeLimits

SECRET = bytes(range(32))
KEY_OF = tree.convergent(SECRET)
hostile_text = st.one_of(
    st.text(max_size=30),
    st.lists(st.sampled_from(["..", ".", "", "a", "b", "/", "\0", "\udcff", "n" * 256]), max_size=8).map("/".join),
)
STAY_HOME = (".git", ".p2pq", "results")
good_name = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=20
).filter(lambda name: name not in {".", ".."} and not name.startswith(STAY_HOME))


@given(hostile_text)
def test_accepted_paths_stay_below_the_root(path):
    try:
        names.check_path(path)
    except Reject:
        return
    root = "/root/of/tree"
    assert os.path.normpath(f"{root}/{path}") == f"{root}/{path}"
    assert path.encode().decode() == path


@given(st.lists(good_name, min_size=1, max_size=5).map("/".join), hostile_text)
def test_accepted_targets_stay_below_the_root(path, target):
    try:
        passed, reached = names.walk_target(path, target)
    except Reject:
        return
    root = "/root/of/tree"
    joined = os.path.normpath(f"{root}/{path}/../{target}")
    assert joined == os.path.normpath(f"{root}/{reached}")
    assert all(os.path.normpath(f"{root}/{step}").startswith(root) for step in passed)


@given(st.text(max_size=400))
def test_displayed_text_is_printable(text):
    shown = names.display(text)
    assert len(shown) <= 200
    assert all(char.isprintable() or char.isspace() or char not in "\x1b\x07\x08\x9b\n\r\t" for char in shown)
    shown.encode()


@given(st.lists(good_name, unique=True, max_size=30))
def test_warnings_never_fail(paths):
    assert len(names.odd_names(paths)) <= names.WARNINGS_MAX + 1


@given(st.binary(min_size=1, max_size=3000), st.data())
def test_any_mutation_of_a_chunk_is_refused(plain, data):
    chunk, ciphertext = tree.seal_chunk(plain, KEY_OF)
    assert tree.open_chunk(chunk, ciphertext) == plain
    at = data.draw(st.integers(0, len(ciphertext) - 1))
    flip = data.draw(st.integers(1, 255))
    mutated = bytearray(ciphertext)
    mutated[at] ^= flip
    for hostile in (bytes(mutated), ciphertext[:at], ciphertext + bytes([flip])):
        try:
            tree.open_chunk(chunk, hostile)
        except Reject:
            continue
        raise AssertionError("a mutated chunk was opened")


chunks = st.builds(
    Chunk,
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=32, max_size=32),
    st.integers(17, 60),
    st.integers(1, 60),
    st.booleans(),
)
paths = st.one_of(hostile_text, st.sampled_from(["a", "a/b", "a/b/c", "b", "b/c"])).filter(
    lambda path: "\udcff" not in path
)
trees = st.builds(
    Tree,
    files=st.lists(
        st.builds(
            File,
            paths,
            st.booleans(),
            st.integers(0, 100),
            st.lists(st.builds(Part, st.integers(0, 3), st.integers(0, 60), st.integers(1, 60)), max_size=2).map(tuple),
        ),
        max_size=4,
    ).map(tuple),
    dirs=st.lists(st.builds(Directory, paths), max_size=3).map(tuple),
    links=st.lists(st.builds(Link, paths, paths), max_size=3).map(tuple),
    chunks=st.lists(chunks, max_size=3).map(tuple),
)


@given(trees)
def test_any_tree_is_accepted_whole_or_refused(hostile):
    try:
        found = tree.decode_tree(tree.encode_tree(hostile), TreeLimits())
    except Reject:
        return
    assert found == hostile


@settings(max_examples=40)
@given(trees)
def test_accepted_trees_write_nothing_outside(hostile):
    hostile = Tree(
        files=tuple(File(file.path, file.executable, 0, ()) for file in hostile.files),
        dirs=hostile.dirs,
        links=hostile.links,
    )
    try:
        tree.check_tree(hostile, TreeLimits())
    except Reject:
        return
    with tempfile.TemporaryDirectory() as base:
        root = Path(base, "in/ner")
        unpack.unpack(hostile, lambda _: b"", root)
        assert os.listdir(base) == ["in"]
        assert os.listdir(Path(base, "in")) == ["ner"]
        for link in hostile.links:
            assert os.path.realpath(root / link.path).startswith(os.path.realpath(root))


@given(st.binary(max_size=300))
def test_random_bytes_are_no_tree(data):
    try:
        tree.decode_tree(data, TreeLimits())
    except Reject:
        return
    assert tree.encode_tree(Tree()) == data


@given(trees, st.data())
def test_mutated_trees_are_refused_or_still_canonical(source, data):
    encoded = bytearray(tree.encode_tree(source))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = tree.decode_tree(bytes(encoded), TreeLimits())
    except Reject:
        return
    assert tree.encode_tree(found) == bytes(encoded)


contents = st.one_of(
    st.binary(max_size=50),
    st.integers(0, 3 * tree.PLAIN_MAX // 2).map(lambda size: b"0123456789abcdef" * (size // 16)),
)
leaf = st.one_of(
    st.tuples(st.just("file"), contents, st.booleans()),
    st.tuples(st.just("link"), st.sampled_from([".", "nowhere", "./x/y"])),
)
folder = st.recursive(
    st.dictionaries(good_name, leaf, max_size=5),
    lambda inner: st.dictionaries(good_name, st.one_of(leaf, inner), max_size=4),
    max_leaves=10,
)


def build(root: Path, entries: dict) -> None:
    root.mkdir()
    for name, entry in entries.items():
        if isinstance(entry, dict):
            build(root / name, entry)
        elif entry[0] == "link":
            (root / name).symlink_to(entry[1])
        else:
            (root / name).write_bytes(entry[1])
            (root / name).chmod(0o755 if entry[2] else 0o644)


def listing(root: Path) -> dict:
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("dir",)
        else:
            found[name] = ("file", path.read_bytes(), os.access(path, os.X_OK))
    return found


@settings(max_examples=40)
@given(folder)
def test_folders_come_back_equal(entries):
    with tempfile.TemporaryDirectory() as base:
        source, first, second = (Path(base, name) for name in ("source", "first", "second"))
        build(source, entries)
        (source / "main.py").unlink(missing_ok=True)
        (source / "main.py").write_bytes(b"")
        blobs: dict = {}
        limits = TreeLimits(bytes_max=1 << 30)
        try:
            found = folders.pack(source, folders.scan(source), blobs.__setitem__, KEY_OF)
            unpack.unpack(tree.decode_tree(tree.encode_tree(found), limits), lambda c: blobs[c.blob], first)
            assert listing(first) == listing(source)
        except folders.UsageError:  # names that never travel, or a link through a link
            assert any(entry[0] == "link" for entry in listing(source).values())
        found, skipped = unpack.collect(source, limits, blobs.__setitem__, lambda _: os.urandom(32))
        unpack.unpack(found, lambda c: blobs[c.blob], second)
        expected = listing(source)
        for line in skipped:
            assert "symlink" in line
        links = {name for name, entry in expected.items() if entry[0] == "link"}
        assert {k: v for k, v in listing(second).items() if k not in links} == {
            k: v for k, v in expected.items() if k not in links
        }
