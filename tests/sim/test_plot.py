"""A chart is a sound PNG in which lines are where they must be."""

import struct
import zlib

import pytest

from simulations.plot import BOTTOM, COLOURS, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Canvas, chart


def pixels(raw: bytes) -> list[bytes]:
    """Return the rows of a picture."""
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, {}
    while at < len(raw):
        (size,) = struct.unpack_from(">I", raw, at)
        kind, data = raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", raw, at + 8 + size) == (zlib.crc32(kind + data),)
        chunks[kind] = data
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    data = zlib.decompress(chunks[b"IDAT"])
    rows = [data[row * (1 + 3 * WIDTH) : (row + 1) * (1 + 3 * WIDTH)] for row in range(HEIGHT)]
    assert all(row[0] == 0 for row in rows)
    return [row[1:] for row in rows]


def at(rows: list[bytes], x: int, y: int) -> tuple[int, ...]:
    return tuple(rows[y][3 * x : 3 * x + 3])


def test_lines_go_where_their_numbers_are():
    rows = pixels(chart("title", "x", "y", {"flat": [(10, 10.0), (100, 10.0)], "bridges": [(10, 1.0), (100, 0.1)]}))
    middle = (WIDTH - LEFT - RIGHT) // 2 + LEFT
    assert at(rows, middle, TOP) == COLOURS[0]
    assert at(rows, WIDTH - RIGHT, HEIGHT - BOTTOM) == COLOURS[1]
    assert at(rows, WIDTH - RIGHT, (HEIGHT - BOTTOM + TOP) // 2) not in COLOURS
    assert at(rows, 2, 2) == (255, 255, 255)


@pytest.mark.parametrize("line", [[(5, 3.0)], [(0, 1.0)], [(1, 1e-9), (2, 1e9)]])
def test_whatever_the_numbers_are_there_is_a_picture(line):
    assert any(set(row) != {255} for row in pixels(chart("t", "x", "y", {"a": line})))


def test_what_is_outside_is_not_painted_and_unknown_letters_are_blanks():
    canvas = Canvas()
    canvas.dot(-5, -5, (0, 0, 0), 3)
    canvas.line((WIDTH - 1, HEIGHT - 1), (WIDTH + 20, HEIGHT + 20), (0, 0, 0), 3)
    canvas.text(10, 10, "é")
    rows = pixels(canvas.png())
    assert at(rows, WIDTH - 1, HEIGHT - 1) == (0, 0, 0)
    assert at(rows, 0, 0) == (255, 255, 255)
    assert set(rows[12]) == {255}
