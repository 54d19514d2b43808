"""Standard input of commands, cut into pieces."""

import msgspec
import pytest

from p2pq.client import feeding as module
from p2pq.client.feeding import Feeding
from p2pq.wire.commandcontrol import KeepInput, SubmitCommands

REQUEST = SubmitCommands(words=("cat",), cwd="/", environment=b"")


@pytest.mark.parametrize(
    ("inputs", "pieces", "sizes"),
    [
        ([b"ab", b"", b"cd"], [b"abcd"], (2, 0, 2)),
        ([b"abc", b"def", b"g"], [b"abc", b"defg"], (3, 3, 1)),
        ([b"a", b"bcdefghijk"], [b"a", b"bcde", b"fghi", b"jk"], (1, 10)),
        ([memoryview(b"ab"), bytearray(b"c")], [b"abc"], (2, 1)),
        ([iter([b"ab", b"cde"]), [], b"f"], [b"ab", b"cdef"], (5, 0, 1)),
    ],
)
def test_pieces_are_bounded_and_blocks_stay_whole_where_they_can(monkeypatch, inputs, pieces, sizes):
    monkeypatch.setattr(module, "PIECE_BYTES_MAX", 4)
    feed = Feeding(inputs)
    kept = list(feed.pieces())
    assert [each.data for each in kept] == pieces
    assert len({each.upload for each in kept}) == 1
    assert msgspec.convert(msgspec.to_builtins(kept[0]), KeepInput) == kept[0]
    assert feed.named(REQUEST) == msgspec.structs.replace(REQUEST, stdin=sizes, upload=kept[0].upload)


@pytest.mark.parametrize("inputs", [[], [b""], [b"", []]])
def test_where_there_is_nothing_to_read_nothing_is_sent(inputs):
    feed = Feeding(inputs)
    assert list(feed.pieces()) == []
    assert feed.named(REQUEST) == msgspec.structs.replace(REQUEST, stdin=(0,) * len(inputs))
