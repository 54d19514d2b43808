"""Bodies that would be millions of parts are refused before they are."""

import resource
import subprocess
import sys

import msgspec
import pytest

from p2pq.errors import Reject
from p2pq.wire import body, codec, prims, seal, shape
from p2pq.wire.objects import BlobRef
from p2pq.wire.tree import PARTS_FREE, Chunk, File, Part, Tree, TreeLimits

KEY = b"k" * 32
CHUNK = Chunk(b"b" * 32, b"k" * 32, 26, 10, False)
MARK = "mark"
PARTS = 12_000_000
MEMORY_BYTES = 700 << 20
"""Address space for an interpreter with all of p2pq.wire, and for nothing like 12 million objects."""


def encoded(parts: int, size: int | None = None) -> bytes:
    """Return a result body with one file of so many parts of one byte, without ever making them."""
    tree = Tree(files=(File(MARK, False, parts if size is None else size, ()),), chunks=(CHUNK,))
    raw = codec.encode(body.ResultBody(tree=tree, output=Tree()))
    head, mark, rest = raw.partition(MARK.encode())
    number = codec.encode(tree.files[0].size)
    assert rest.startswith(b"\xc2" + number + b"\x90")
    length = b"\xdc" + parts.to_bytes(2) if parts >> 16 == 0 else b"\xdd" + parts.to_bytes(4)
    many = length + b"\x93\x00\x00\x01" * parts
    return head + mark + b"\xc2" + number + many + rest[len(number) + 2 :]


def sealed(raw: bytes) -> tuple[tuple[BlobRef, ...], dict[bytes, bytes]]:
    blobs = [
        seal.encrypt_body(KEY, raw[at : at + body.PART_BYTES], body._aad(number))
        for number, at in enumerate(range(0, len(raw), body.PART_BYTES))
    ]
    return tuple(BlobRef(prims.blob_id(blob), len(blob)) for blob in blobs), {
        prims.blob_id(blob): blob for blob in blobs
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ratio", "why"),
    [
        (body.PLAIN_RATIO, "a body is far longer than what it was packed into"),
        (1000, "a tree is cut into too many parts"),
    ],
)
def test_a_few_compressed_bytes_are_never_millions_of_parts(tmp_path, ratio, why):
    """In a process that has no room for them. Either bound is enough."""
    refs, blobs = sealed(encoded(PARTS))
    assert sum(map(len, blobs.values())) < 200_000
    kept = tmp_path / "bomb"
    kept.write_bytes(msgspec.msgpack.encode([refs, list(blobs.values())]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.wire.test_shape", str(kept), str(ratio)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reason, grown_kb = done.stdout.splitlines()
    assert reason == why
    assert int(grown_kb) < 120_000, "48 MB of plain text, in two or three copies at most"


def open_it(path: str, ratio: int) -> None:
    """Open a body in a process of its own; print why not, and how much memory it took to see that."""
    with open(path, "rb") as file:  # noqa: PTH123  no more imports than it takes
        refs, blobs = msgspec.msgpack.decode(file.read(), type=tuple[tuple[BlobRef, ...], list[bytes]])
    body.PLAIN_RATIO = ratio
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        body.decrypt(KEY, refs, {prims.blob_id(blob): blob for blob in blobs}, body.ResultBody)
    except Reject as error:
        print(error.reason)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_a_body_that_is_far_longer_than_its_ciphertext_is_refused():
    refs, blobs = sealed(bytes(body.PLAIN_FREE + 3 * body.PART_BYTES))
    with pytest.raises(Reject, match="far longer"):
        body.decrypt(KEY, refs, blobs, body.ResultBody)


def test_as_many_parts_as_packing_makes_are_fine(monkeypatch):
    monkeypatch.setattr(shape, "LOOKED_AT_BYTES", 0)
    raw = encoded(PARTS_FREE + 2)
    shape.check_shape(raw, TreeLimits(), TreeLimits())
    refs, blobs = sealed(raw)
    found = body.decrypt(KEY, refs, blobs, body.ResultBody)
    assert found.tree.files[0].parts == (Part(0, 0, 1),) * (PARTS_FREE + 2)
    with pytest.raises(Reject, match="too many parts"):
        shape.check_shape(encoded(PARTS_FREE + 3), TreeLimits(), TreeLimits())
    shape.check_shape(encoded(PARTS_FREE + 3, size=64 << 10), TreeLimits(), TreeLimits())
    with pytest.raises(Reject, match="too many bytes"):
        shape.check_shape(encoded(1, size=64 << 10), TreeLimits(bytes_max=(64 << 10) - 1), TreeLimits())


@pytest.mark.parametrize("count", [0, 15, 16, 65_535, 65_536])
def test_an_array_is_counted_by_its_head(count):
    assert shape._length(msgspec.Raw(msgspec.msgpack.encode([1] * count))) == count


def test_what_is_no_array_has_no_length(monkeypatch):
    monkeypatch.setattr(shape, "LOOKED_AT_BYTES", 0)
    for chunks in (1, "x", None, {"a": 1}):
        raw = msgspec.msgpack.encode({"tree": {"chunks": chunks}})
        with pytest.raises(Reject, match="malformed"):
            shape.check_shape(raw, TreeLimits(), TreeLimits())


def test_the_same_holds_for_a_body_that_is_decoded_at_once():
    refs, blobs = sealed(encoded(PARTS_FREE + 3))
    with pytest.raises(Reject, match="too many parts"):
        body.decrypt(KEY, refs, blobs, body.ResultBody)


if __name__ == "__main__":
    open_it(sys.argv[1], int(sys.argv[2]))
