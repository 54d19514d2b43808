"""Messages over records: cut, put together, bounded, ended."""

import struct

import lz4.block
import lz4.frame
import pytest

from p2pq.errors import LocalProtocolError, Reject
from p2pq.wire import frames
from tests.unit.wire.makers import entropy


def frame(kind, stored, size=None, stored_size=None):
    return (
        struct.pack(
            "<BII",
            kind,
            len(stored) if stored_size is None else stored_size,
            len(stored) if size is None else size,
        )
        + stored
    )


NOISE = entropy("frames")(200_000)
PLAIN = b"a" * 1000
BLOCK = lz4.block.compress(PLAIN, store_size=False)


@pytest.mark.parametrize("message", [b"x", PLAIN[:512], PLAIN, NOISE, b"ab" * 1_000_000])
def test_there_and_back(message):
    pieces = frames.encode(message)
    assert all(0 < len(piece) <= frames.PIECE_BYTES_MAX for piece in pieces)
    decoder = frames.Decoder()
    got = [found for piece in pieces for found in decoder.feed(piece)]
    assert got == [message]


def test_compressed_only_where_it_helps():
    assert frames.encode(PLAIN[:512])[0][0] == 0
    assert frames.encode(NOISE[:1000])[0][0] == 0
    assert frames.encode(PLAIN)[0][0] == 1
    assert len(frames.encode(PLAIN)[0]) < 100
    assert len(frames.encode(NOISE)) == 4


def test_several_messages_in_one_record_and_one_in_many():
    stream = b"".join(piece for message in (b"one", PLAIN, NOISE, b"two") for piece in frames.encode(message))
    assert frames.Decoder().feed(stream) == [b"one", PLAIN, NOISE, b"two"]
    decoder = frames.Decoder()
    small = [found for at in range(1100) for found in decoder.feed(stream[at : at + 1])]
    assert small == [b"one", PLAIN]


@pytest.mark.parametrize("message", [b"", bytes(101)])
def test_own_mistakes_are_found_before_they_travel(message):
    with pytest.raises(LocalProtocolError):
        frames.encode(message, size_max=100)


def test_bye_ends_the_stream():
    decoder = frames.Decoder()
    with pytest.raises(Reject, match="without BYE"):
        decoder.finish()
    assert decoder.feed(frames.encode(b"last")[0] + frames.encode_bye("done")) == [b"last"]
    assert decoder.bye == "done"
    decoder.finish()
    with pytest.raises(Reject, match="after BYE"):
        decoder.feed(frames.encode(b"more")[0])
    with pytest.raises(Reject, match="after a failure"):
        decoder.feed(frames.encode_bye())


def test_nothing_follows_bye_in_its_record():
    with pytest.raises(Reject, match="after BYE"):
        frames.Decoder().feed(frames.encode_bye("x") + b"\0")


def test_a_stream_cut_within_a_message_has_no_bye():
    decoder = frames.Decoder()
    assert decoder.feed(frames.encode(NOISE)[0]) == []
    with pytest.raises(Reject, match="without BYE"):
        decoder.finish()


def test_byes_are_short_text():
    decoder = frames.Decoder()
    decoder.feed(frames.encode_bye("ä" * 1000))
    assert decoder.bye == "ä" * 100
    decoder = frames.Decoder()
    decoder.feed(frames.encode_bye("\ud800"))
    assert decoder.bye == "?"
    decoder = frames.Decoder()
    decoder.feed(frame(2, b"\xff"))
    assert decoder.bye == "\ufffd"


@pytest.mark.parametrize(
    "piece",
    [
        b"",
        frame(0, b""),
        frame(0, b"abc", size=2),
        frame(0, b"abc", size=4),
        frame(0, b"", size=1001, stored_size=1001),  # refused by its header alone
        frame(0, b"", size=(1 << 32) - 1, stored_size=(1 << 32) - 1),
        frame(1, b"", size=1000),
        frame(1, BLOCK, size=999),
        frame(1, BLOCK, size=1001),
        frame(1, BLOCK, size=(1 << 32) - 1),
        frame(1, BLOCK, size=len(BLOCK)),
        frame(1, BLOCK, size=0),
        frame(1, BLOCK + b"\0", size=1000),
        frame(1, BLOCK[:-1], size=1000),
        frame(1, lz4.frame.compress(PLAIN), size=1000),
        frame(1, NOISE[:100], size=1000),
        frame(2, b"a" * 201),
        frame(2, b"abc", size=2),
        frame(3, b"abc"),
        frame(255, b""),
        b"\xff" * 9,
    ],
)
def test_hostile_frames_are_rejected_and_kill_the_decoder(piece):
    decoder = frames.Decoder(size_max=1000)
    with pytest.raises(Reject):
        decoder.feed(piece)
    with pytest.raises(Reject, match="after a failure"):
        decoder.feed(frames.encode(b"fine")[0])


def test_the_cap_is_inclusive():
    decoder = frames.Decoder(size_max=1000)
    assert decoder.feed(frames.encode(PLAIN)[0]) == [PLAIN]
    assert decoder.feed(frames.encode(NOISE[:1000])[0]) == [NOISE[:1000]]
