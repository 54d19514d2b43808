"""A chart as a PNG, with nothing but the standard library: lines over a linear and a logarithmic axis."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, floor, log10
from typing import Final

WIDTH: Final = 800
HEIGHT: Final = 480
LEFT, RIGHT, TOP, BOTTOM = 90, 30, 50, 70
SCALE: Final = 2
"""Pixels of the picture per dot of a letter."""
BLACK, GREY = (0, 0, 0), (215, 215, 215)
COLOURS: Final = ((200, 60, 40), (30, 100, 190), (60, 150, 60), (150, 90, 170))
_GLYPHS: Final = {
    " ": "00000", "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717", "6": "74757",
    "7": "71111", "8": "75757", "9": "75717", "a": "25755", "b": "65656", "c": "74447", "d": "65556", "e": "74647",
    "f": "74644", "g": "74557", "h": "55755", "i": "72227", "j": "11157", "k": "55655", "l": "44447", "m": "57755",
    "n": "65555", "o": "75557", "p": "75744", "q": "75571", "r": "75655", "s": "34216", "t": "72222", "u": "55557",
    "v": "55552", "w": "55775", "x": "55255", "y": "55222", "z": "71247", ".": "00002", ",": "00024", "/": "11244",
    "-": "00700", "(": "12221", ")": "42224", ":": "02020",
}  # fmt: skip
"""Five rows of three dots each."""

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]


class Canvas:
    """A picture."""

    def __init__(self) -> None:
        """Begin white."""
        self._rows = [bytearray(b"\xff" * 3 * WIDTH) for _ in range(HEIGHT)]

    def dot(self, x: int, y: int, colour: Colour, size: int = 1) -> None:
        """Paint a square around a point, as far as it is inside."""
        for row in range(max(0, y - size // 2), min(HEIGHT, y - size // 2 + size)):
            for column in range(max(0, x - size // 2), min(WIDTH, x - size // 2 + size)):
                self._rows[row][3 * column : 3 * column + 3] = bytes(colour)

    def line(self, one: tuple[int, int], other: tuple[int, int], colour: Colour, size: int = 1) -> None:
        """Draw a straight line."""
        steps = max(1, abs(other[0] - one[0]), abs(other[1] - one[1]))
        for step in range(steps + 1):
            x, y = (round(start + (end - start) * step / steps) for start, end in zip(one, other, strict=True))
            self.dot(x, y, colour, size)

    def text(self, x: int, y: int, text: str, colour: Colour = BLACK) -> None:
        """Write in small letters, from there on."""
        for number, letter in enumerate(text.lower()):
            for row, dots in enumerate(_GLYPHS.get(letter, _GLYPHS[" "])):
                for column in range(3):
                    if int(dots) >> (2 - column) & 1:
                        self.dot(x + SCALE * (4 * number + column), y + SCALE * row, colour, SCALE)

    def png(self) -> bytes:
        """Return it as a file."""
        head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
        data = zlib.compress(b"".join(b"\x00" + row for row in self._rows), 9)
        return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chart(title: str, across: str, up: str, series: Mapping[str, Points]) -> bytes:
    """Return a chart of several lines; ``across`` is linear and begins at 0, ``up`` is logarithmic."""
    canvas = Canvas()
    points = [point for line in series.values() for point in line]
    most = max(x for x, _ in points) or 1.0
    low, high = floor(log10(min(y for _, y in points))), ceil(log10(max(y for _, y in points)))
    high = max(high, low + 1)

    def place(x: float, y: float) -> tuple[int, int]:
        right = LEFT + (WIDTH - LEFT - RIGHT) * x / most
        return round(right), round(TOP + (HEIGHT - TOP - BOTTOM) * (high - log10(y)) / (high - low))

    for power in range(low, high + 1):
        canvas.line(place(0.0, 10.0**power), place(most, 10.0**power), GREY)
        canvas.text(LEFT - 70, place(0.0, 10.0**power)[1] - 5, f"{10.0**power:g}")
    for x in dict.fromkeys(x for x, _ in points):
        canvas.line(place(x, 10.0**low), place(x, 10.0**high), GREY)
        canvas.text(place(x, 1.0)[0] - 4 * len(f"{x:g}"), HEIGHT - BOTTOM + 10, f"{x:g}")
    canvas.line(place(0.0, 10.0**low), place(most, 10.0**low), BLACK)
    canvas.line(place(0.0, 10.0**low), place(0.0, 10.0**high), BLACK)
    canvas.text(LEFT, 12, title)
    canvas.text(LEFT, HEIGHT - 25, across)
    canvas.text(LEFT, TOP - 18, up)
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        ends = [place(x, y) for x, y in line]
        for one, other in pairwise(ends):
            canvas.line(one, other, colour, 3)
        for end in ends:
            canvas.dot(*end, colour, 9)
        canvas.text(WIDTH - RIGHT - 8 * max(map(len, series)), TOP + 8 + 18 * number, name, colour)
    return canvas.png()
