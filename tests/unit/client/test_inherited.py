"""What a command has of this process."""

import os

from p2pq.client.inherited import environment, umask


def test_the_umask_is_read_and_stays():
    before = os.umask(0o027)
    try:
        assert (umask(), umask()) == (0o027, 0o027)
    finally:
        os.umask(before)


def test_the_environment_byte_by_byte(monkeypatch):
    monkeypatch.setattr(os, "environb", {b"A": b"\xff=\n", b"B": b""})
    assert environment() == b"A=\xff=\n\0B=\0"
