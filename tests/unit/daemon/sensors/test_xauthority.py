"""Cookies, as xauth writes them."""

import struct

import pytest

from p2pq.daemon.sensors.xauthority import COOKIE, cookie


def entry(family: int, number: bytes, data: bytes, name: bytes = COOKIE) -> bytes:
    fields = (b"host", number, name, data)
    return struct.pack(">H", family) + b"".join(struct.pack(">H", len(field)) + field for field in fields)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (entry(256, b"0", b"other") + entry(256, b"7", b"ours"), b"ours"),
        (entry(65_535, b"", b"any"), b"any"),
        (entry(0, b"7", b"far") + entry(256, b"7", b"ours"), b"ours"),
        (entry(256, b"7", b"x", b"XDM-AUTHORIZATION-1"), b""),
        (entry(256, b"7", b"ours") + entry(256, b"7", b"cut off")[:-3], b"ours"),
        (entry(256, b"7", b"ours") + b"\x01", b"ours"),
        (b"", b""),
        (b"\xff" * 9, b""),
    ],
    ids=[
        "among others",
        "for any",
        "this machine's first",
        "of another kind",
        "cut off",
        "cut off early",
        "none",
        "nonsense",
    ],
)
def test_the_cookie_of_a_display(content: bytes, found: bytes) -> None:
    assert cookie(content, 7) == found
