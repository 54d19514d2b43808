"""Chunks and trees: security.md H41, H54 to H56, and what a hostile tree could do to its unpacker."""

import os

import lz4.block
import msgspec
import pytest

from p2pq.errors import Reject
from p2pq.wire import prims, tree
from p2pq.wire.tree import Chunk, Directory, File, Link, Part, Tree, TreeLimits

SECRET = bytes(range(32))
KEY = bytes(32)
RAW = os.urandom(1000)
SEALED, _ = tree.seal_chunk(RAW, lambda _data: KEY)
LIMITS = TreeLimits(entries_max=100, bytes_max=10_000)


def sealed(inner: bytes, length: int, *, packed: bool) -> tuple[Chunk, bytes]:
    """What an attacker who knows the format can make: any inner bytes, any declared length."""
    ciphertext = prims.xchacha_encrypt(KEY, bytes(24), inner, b"")
    return Chunk(prims.blob_id(ciphertext), KEY, len(ciphertext), length, packed), ciphertext


def encoded(**fields: object) -> bytes:
    return msgspec.msgpack.encode({"v": 1, "files": [], "dirs": [], "links": [], "chunks": [], **fields})


# -- chunks -------------------------------------------------------------------------------------------------------------


CHUNKS = {"one": b"x", "even": b"ab" * 50_000, "random": os.urandom(100_000), "full": bytes(tree.PLAIN_MAX)}


@pytest.mark.parametrize("plain", CHUNKS.values(), ids=CHUNKS)
def test_chunk_round_trip(plain):
    chunk, ciphertext = tree.seal_chunk(plain, tree.convergent(SECRET))
    assert tree.open_chunk(chunk, ciphertext) == plain
    assert chunk.size == len(ciphertext) <= tree.CHUNK
    assert chunk.length == len(plain)
    assert tree.made_of(chunk, plain)
    assert not tree.made_of(chunk, plain[:-1] + bytes([plain[-1] ^ 1]))
    assert not tree.made_of(chunk, plain + b"x")


def test_incompressible_chunk_of_full_size_fits():
    chunk, ciphertext = tree.seal_chunk(os.urandom(tree.PLAIN_MAX), tree.convergent(SECRET))
    assert not chunk.packed
    assert len(ciphertext) == tree.CHUNK


@pytest.mark.parametrize("size", [0, tree.PLAIN_MAX + 1])
def test_chunks_of_other_sizes_are_a_bug(size):
    with pytest.raises(AssertionError):
        tree.seal_chunk(bytes(size), tree.convergent(SECRET))


def test_keys_converge_for_one_node_only():
    first, _ = tree.seal_chunk(b"same" * 100, tree.convergent(SECRET))
    again, _ = tree.seal_chunk(b"same" * 100, tree.convergent(SECRET))
    other_node, _ = tree.seal_chunk(b"same" * 100, tree.convergent(bytes(32)))
    other_data, _ = tree.seal_chunk(b"sama" * 100, tree.convergent(SECRET))
    assert first == again
    assert len({first.key, other_node.key, other_data.key}) == 3
    assert len({first.blob, other_node.blob, other_data.blob}) == 3


def test_key_depends_on_the_very_bytes_that_are_encrypted():
    seen = []

    def key_of(data: bytes) -> bytes:
        seen.append(data)
        return KEY

    plain = b"abc" * 1000
    tree.seal_chunk(plain, key_of)
    assert seen == [lz4.block.compress(plain, store_size=False)]


@pytest.mark.parametrize("at", [0, 500, -1])
def test_mutated_ciphertext_is_refused(at):
    chunk, ciphertext = tree.seal_chunk(RAW, lambda _data: KEY)
    mutated = bytearray(ciphertext)
    mutated[at] ^= 1
    with pytest.raises(Reject, match="does not match its name"):
        tree.open_chunk(chunk, bytes(mutated))


@pytest.mark.parametrize("cut", [slice(0, -1), slice(0, 0), slice(1, None)])
def test_short_ciphertext_is_refused(cut):
    chunk, ciphertext = tree.seal_chunk(RAW, lambda _data: KEY)
    with pytest.raises(Reject):
        tree.open_chunk(chunk, ciphertext[cut])
    with pytest.raises(Reject):
        tree.open_chunk(chunk, ciphertext + b"x")


def test_other_key_is_refused():
    chunk, ciphertext = tree.seal_chunk(RAW, lambda _data: KEY)
    with pytest.raises(Reject):
        tree.open_chunk(msgspec.structs.replace(chunk, key=SECRET), ciphertext)


BOMB = lz4.block.compress(bytes(tree.PLAIN_MAX * 4), store_size=False)
SMALL = lz4.block.compress(b"a" * 1000, store_size=False)


@pytest.mark.parametrize(
    ("inner", "length", "packed"),
    [
        (BOMB, tree.PLAIN_MAX, True),  # four times more inside than declared
        (SMALL, 999, True),
        (SMALL, 1001, True),
        (SMALL, tree.PLAIN_MAX, True),
        (SMALL + b"trailing", 1000, True),
        (SMALL + SMALL, 1000, True),
        (b"not lz4 at all", 1000, True),
        (b"", 1, True),
        (b"raw", 4, False),
        (b"raw", 2, False),
        (b"", 1, False),
    ],
)
def test_bombs_and_wrong_lengths_are_refused(inner, length, packed):
    chunk, ciphertext = sealed(inner, length, packed=packed)
    with pytest.raises(Reject):
        tree.open_chunk(chunk, ciphertext)


def test_lz4_frames_are_not_blocks():
    frame = b"\x04\x22\x4d\x18\x50\x2a\x4d\x18" + bytes(20)  # a frame, then a skippable frame
    chunk, ciphertext = sealed(frame, 1000, packed=True)
    with pytest.raises(Reject):
        tree.open_chunk(chunk, ciphertext)


# -- trees --------------------------------------------------------------------------------------------------------------


def test_tree_round_trip():
    source = Tree(
        files=(File("a/b", True, 1000, (Part(0, 0, 1000),)), File("empty", False, 0, ())),
        dirs=(Directory("hollow"),),
        links=(Link("a/l", "../empty"),),
        chunks=(SEALED,),
    )
    assert tree.decode_tree(tree.encode_tree(source), LIMITS) == source


def test_too_long_trees_are_refused_before_they_are_read(monkeypatch):
    monkeypatch.setattr(tree, "TREE_BYTES_MAX", 100)
    with pytest.raises(Reject, match="too long"):
        tree.decode_tree(bytes(101), LIMITS)


def test_h55_too_many_entries(monkeypatch):
    many = Tree(files=tuple(File(f"{n}", False, 0, ()) for n in range(101)))
    with pytest.raises(Reject, match="too many entries"):
        tree.check_tree(many, LIMITS)
    implied = Tree(files=(File("/".join("a" * 102), False, 0, ()),))
    with pytest.raises(Reject, match="too many entries"):
        tree.check_tree(implied, LIMITS)
    together = Tree(files=tuple(File(f"{n}/x", False, 0, ()) for n in range(60)))
    with pytest.raises(Reject, match="too many entries"):
        tree.check_tree(together, LIMITS)
    monkeypatch.setattr(tree, "TREE_BYTES_MAX", 1000)
    wide = Tree(files=tuple(File(f"{n}{'w' * 200}/x", False, 0, ()) for n in range(10)))
    with pytest.raises(Reject, match="too many entries"):
        tree.check_tree(wide, LIMITS)


@pytest.mark.parametrize("path", ["..", "/abs", "a//b", "", "n" * 300, "a/" * 599 + "a", "nul\0", "../x", "a/./b"])
def test_h54_unsafe_paths(path):
    for hostile in (
        Tree(files=(File(path, False, 0, ()),)),
        Tree(dirs=(Directory(path),)),
        Tree(links=(Link(path, "x"),)),
    ):
        with pytest.raises(Reject):
            tree.decode_tree(tree.encode_tree(hostile), TreeLimits())


@pytest.mark.parametrize(
    "hostile",
    [
        Tree(files=(File("a", False, 0, ()), File("a", False, 0, ()))),
        Tree(files=(File("a", False, 0, ()),), dirs=(Directory("a"),)),
        Tree(links=(Link("a", "b"),), dirs=(Directory("a"),)),
        Tree(files=(File("a", False, 0, ()), File("a/b", False, 0, ()))),
        Tree(files=(File("a", False, 0, ()), File("a/b/c/d", False, 0, ()))),
        Tree(files=(File("a", False, 0, ()),), dirs=(Directory("a/b"),)),
        Tree(links=(Link("a", "b"),), files=(File("a/c", False, 0, ()),)),
        Tree(links=(Link("a", "b"), Link("a/c", "x"))),
    ],
)
def test_h54_twice_or_below_a_leaf(hostile):
    with pytest.raises(Reject):
        tree.check_tree(hostile, LIMITS)


@pytest.mark.parametrize(
    "links",
    [
        (Link("l", "/etc/passwd"),),
        (Link("l", ".."),),
        (Link("a/l", "../../x"),),
        (Link("l", ""),),
        (Link("p/q/x", "../../z"), Link("y", "p/q/x/../../..")),  # inside by its letters only
        (Link("x", "a"), Link("y", "x/b")),
    ],
)
def test_symlinks_that_leave_or_pass_others(links):
    with pytest.raises(Reject):
        tree.check_tree(Tree(links=links), LIMITS)


def test_symlinks_inside_are_fine():
    tree.check_tree(Tree(links=(Link("a/l", "../b"), Link("b", "c/d"), Link("m", "b"), Link("r", "."))), LIMITS)


@pytest.mark.parametrize(
    "file",
    [
        File("f", False, 1000, (Part(1, 0, 1000),)),
        File("f", False, 1000, (Part(0, 1, 1000),)),
        File("f", False, 1001, (Part(0, 0, 1000), Part(0, 1000, 1))),
        File("f", False, 999, (Part(0, 0, 1000),)),
        File("f", False, 1001, (Part(0, 0, 1000),)),
        File("f", False, 1, ()),
        File("f", False, 0, (Part(0, 0, 1),)),
    ],
)
def test_h56_parts_that_do_not_fit(file):
    with pytest.raises(Reject):
        tree.check_tree(Tree(files=(file,), chunks=(SEALED,)), LIMITS)


def test_many_small_parts_of_one_chunk_count_in_full():
    parts = (Part(0, 0, 1000),) * 11
    with pytest.raises(Reject, match="too many bytes"):
        tree.check_tree(Tree(files=(File("f", False, 11_000, parts),), chunks=(SEALED,)), LIMITS)


@pytest.mark.parametrize(
    ("size", "length", "packed"),
    [(1016, 1000, True), (1017, 1000, True), (1015, 1000, False), (1017, 1000, False)],
)
def test_chunks_that_contradict_themselves(size, length, packed):
    chunk = Chunk(SEALED.blob, KEY, size, length, packed)
    with pytest.raises(Reject, match="contradict"):
        tree.check_tree(Tree(chunks=(chunk,)), LIMITS)


@pytest.mark.parametrize("size", [-1, True, 2**60, 2**64 - 1, 1.0, "1", None])
def test_h56_sizes(size):
    with pytest.raises(Reject):
        tree.decode_tree(encoded(files=[["f", False, size, []]]), LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        encoded(v=2),
        encoded(v=0),
        encoded(more=1),
        encoded(files=[["f", False, 0, [], "more"]]),
        encoded(files=[["f", 0, 0, []]]),
        encoded(files=[["f", False, 0]]),
        encoded(files=[["f", False, 0, [[0, 0, 0]]]]),
        encoded(files=[["f", False, 0, [[0, -1, 1]]]]),
        encoded(chunks=[[bytes(31), bytes(32), 17, 1, False]]),
        encoded(chunks=[[bytes(32), bytes(33), 17, 1, False]]),
        encoded(chunks=[[bytes(32), bytes(32), tree.CHUNK + 1, 1, False]]),
        encoded(chunks=[[bytes(32), bytes(32), 17, tree.PLAIN_MAX + 1, False]]),
        encoded(chunks=[[bytes(32), bytes(32), 16, 1, True]]),
        encoded() + b"\0",
        encoded().replace(b"\xa1v\x01", b"\xa1v\xcc\x01"),  # a longer form of the same number
        encoded(files=[["\udcff".encode(errors="surrogatepass").decode("latin-1"), False, 0, 0]]),
        encoded(files=[["f", False, 0, []]]).replace(b"\xa1f\xc2", b"\xa1\xff\xc2"),  # not UTF-8
        b"\x91" * 100_000,
    ],
)
def test_malformed_trees_are_refused(data):
    with pytest.raises(Reject):
        tree.decode_tree(data, LIMITS)


def test_format_is_frozen():
    """Golden: a change of these bytes is a change of the format."""
    chunk, ciphertext = tree.seal_chunk(b"p2pq" * 10, tree.convergent(SECRET))
    source = Tree(files=(File("a", True, 40, (Part(0, 0, 40),)),), chunks=(chunk,))
    assert (
        prims.blake2b(ciphertext + tree.encode_tree(source)).hex()
        == "fd36969cb89c4b081971f17b43ae982a04885063b8691dfc7ae91e045dc375f1"
    )


def test_plain_tree_is_what_the_encoder_makes():
    assert tree.decode_tree(encoded(), LIMITS) == Tree()


def test_a_part_of_a_tree_takes_its_own_chunks_only():
    chunks = tuple(tree.seal_chunk(bytes([n]) * 50, tree.convergent(SECRET))[0] for n in range(3))
    files = (
        File("keep/a", True, 30, (Part(2, 10, 20), Part(0, 0, 10))),
        File("other", False, 5, (Part(1, 0, 5),)),
        File("keep/b", False, 5, (Part(2, 0, 5),)),
    )
    whole = Tree(
        files=files,
        dirs=(Directory("keep/empty"), Directory("empty")),
        links=(Link("keep/l", "a"), Link("l", "other")),
        chunks=chunks,
    )
    part = tree.select(whole, lambda path: path.startswith("keep/"))
    assert part == Tree(
        files=(
            File("keep/a", True, 30, (Part(1, 10, 20), Part(0, 0, 10))),
            File("keep/b", False, 5, (Part(1, 0, 5),)),
        ),
        dirs=(Directory("keep/empty"),),
        links=(Link("keep/l", "a"),),
        chunks=(chunks[0], chunks[2]),
    )
    tree.check_tree(part, LIMITS)
    assert tree.select(whole, lambda _: True) == whole


def test_what_a_tree_takes_on_a_disk():
    found = Tree(
        files=(File("a", False, 10, ()), File("b", False, 0, ())), dirs=(Directory("d"),), links=(Link("l", "a"),)
    )
    assert tree.tree_bytes(found) == 10
    assert tree.disk_bytes(found) == 10 + 4 * tree.BLOCK_BYTES


def test_a_part_of_a_file_is_read_out_of_its_chunk():
    chunk, ciphertext = tree.seal_chunk(b"one, two, three", lambda _: SECRET)
    folder = Tree(files=(File("two", False, 3, (Part(0, 5, 3),)),), chunks=(chunk,))
    assert tree.read_part(folder, folder.files[0].parts[0], {chunk.blob: ciphertext}.__getitem__) == b"two"
