"""How file contents become chunks; folders and results use it, and their tests cover what they see of it."""

import os

import pytest

from p2pq.daemon import packer
from p2pq.daemon.packer import ChangedError, Packer, read_exactly
from p2pq.wire import tree

KEY_OF = tree.convergent(bytes(32))


def add(target, folder, name, data):
    path = folder / name
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return target.add(name, descriptor)
    finally:
        os.close(descriptor)


def opened(files, chunks, blobs):
    plain = [tree.open_chunk(chunk, blobs[chunk.blob]) for chunk in chunks]
    return {
        file.path: b"".join(plain[part.chunk][part.offset : part.offset + part.length] for part in file.parts)
        for file in files
    }


def test_files_come_out_in_the_order_they_went_in(tmp_path):
    contents = {"z": b"", "a": b"x" * 10, "m": os.urandom(tree.PLAIN_MAX * 2 + 1), "b": b"y" * 5}
    blobs = {}
    with Packer(blobs.__setitem__, KEY_OF) as target:
        sizes = [add(target, tmp_path, name, data) for name, data in contents.items()]
        files, chunks = target.finish()
    assert sizes == [len(data) for data in contents.values()]
    assert [file.path for file in files] == list(contents)
    assert opened(files, chunks, blobs) == contents
    tree.check_tree(tree.Tree(files=files, chunks=chunks), tree.TreeLimits())


def test_blobs_reach_the_sink_in_order_whatever_thread_is_faster(tmp_path):
    sunk = []
    with Packer(lambda blob, _ciphertext: sunk.append(blob), KEY_OF, threads=4) as target:
        for number in range(12):
            add(target, tmp_path, f"{number:02}", os.urandom(300_000 * (1 + number % 3)))
        _, chunks = target.finish()
    assert sunk == [chunk.blob for chunk in chunks]


def test_small_files_share_a_chunk_and_large_ones_do_not(tmp_path):
    with Packer(lambda *_: None, KEY_OF) as target:
        for name, size in (("a", 10), ("b", packer.SMALL - 1), ("c", packer.SMALL), ("d", 10)):
            add(target, tmp_path, name, os.urandom(size))
        files, chunks = target.finish()
    assert [[part.chunk for part in file.parts] for file in files] == [[0], [0], [1], [2]]
    assert [chunk.length for chunk in chunks] == [packer.SMALL + 9, packer.SMALL, 10]


def test_few_chunks_are_in_flight_at_once(tmp_path):
    """Bounded memory: reading waits for sealing and for the sink."""
    begun, sunk = [], []

    def key_of(data):
        begun.append(data[:8])
        assert len(begun) - len(sunk) <= packer.IN_FLIGHT_MAX
        return KEY_OF(data)

    with Packer(lambda blob, _ciphertext: sunk.append(blob), key_of) as target:
        for number in range(20):
            add(target, tmp_path, f"{number}", os.urandom(packer.SMALL))
        target.finish()
    assert len(begun) == len(sunk) == 20


def test_a_sink_that_fails_stops_it(tmp_path):
    def full(_blob, _ciphertext):
        raise KeyError

    def pack():
        with Packer(full, KEY_OF) as target:
            for number in range(10):
                add(target, tmp_path, f"{number}", os.urandom(packer.SMALL))

    with pytest.raises(KeyError):
        pack()


def test_read_exactly_goes_on_after_short_reads():
    reader, writer = os.pipe()
    os.write(writer, b"12345")
    os.write(writer, b"678")
    os.close(writer)
    assert read_exactly(reader, 6) == b"123456"
    with pytest.raises(ChangedError):
        read_exactly(reader, 3)
    os.close(reader)


def test_changed_sees_size_and_times(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"1")
    before = path.stat()
    assert not packer.changed(before, path.stat())
    os.utime(path, ns=(0, before.st_mtime_ns + 1))
    assert packer.changed(before, path.stat())
