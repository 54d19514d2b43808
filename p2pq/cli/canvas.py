"""An X window to draw in: text of any size, and rectangles. Where it comes from does not matter.

Letters are those that every X server has. They are drawn by it once, small, and made larger here, with their slopes smoothed.
"""

import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from p2pq.daemon.sensors.xclient import PACKET_BYTES, XAnswerError, XClient

FONTS: Final = ("-misc-fixed-medium-r-semicondensed--13-120-75-75-c-60-iso10646-1", "fixed")
TEXTS_MAX: Final = 64
"""So many are kept as they were drawn."""
CHARACTERS_MAX: Final = 250
"""Of one text; the protocol has 254."""

_CHANGE_WINDOW: Final = 2
_GET_GEOMETRY: Final = 14
_GET_ATTRIBUTES: Final = 3
_OPEN_FONT: Final = 45
_QUERY_TEXT_EXTENTS: Final = 48
_CREATE_PIXMAP: Final = 53
_FREE_PIXMAP: Final = 54
_CREATE_GC: Final = 55
_CHANGE_GC: Final = 56
_FREE_GC: Final = 60
_COPY_AREA: Final = 62
_FILL_RECTANGLES: Final = 70
_PUT_IMAGE: Final = 72
_GET_IMAGE: Final = 73
_IMAGE_TEXT_16: Final = 77
_ALLOC_COLOR: Final = 84
_FOREGROUND: Final = 1 << 2
_BACKGROUND: Final = 1 << 3
_FONT: Final = 1 << 14
_NO_EXPOSURES: Final = 1 << 16
_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

Bits = list[int]
"""A picture in black and white: a number for each row, whose lowest bit is the leftmost pixel."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text as it is drawn."""

    width: int
    rows: Bits


class Canvas:
    """Draws into a window, through a picture that the server keeps, so that nothing flickers."""

    def __init__(self, client: XClient, window: int) -> None:
        """Take a window.

        Raises:
            XAnswerError: there is no such window, or the server has no letters.
            XGoneError: the server has gone.
        """
        self._client = client
        self.window = window
        self._colors: dict[int, int] = {}
        self._texts: OrderedDict[tuple[str, int], Text] = OrderedDict()
        reply = client.ask(_GET_ATTRIBUTES, 0, struct.pack("<I", window))
        (self._colormap,) = struct.unpack_from("<I", reply, 28)
        self._depth = 0
        self.resize()
        self._font, self._wide = self._open_font()
        reply = client.ask(_QUERY_TEXT_EXTENTS, 1, struct.pack("<I", self._font) + b"\0M")
        self._ascent, descent = struct.unpack_from("<hh", reply, 8)
        (self.letter_width,) = struct.unpack_from("<i", reply, 16)
        self.letter_height = self._ascent + descent
        self._gc = client.new_id()
        client.tell(_CREATE_GC, 0, struct.pack("<4I", self._gc, window, _NO_EXPOSURES, 0))

    def resize(self) -> None:
        """Learn how large the window is now."""
        reply = self._client.ask(_GET_GEOMETRY, 0, struct.pack("<I", self.window))
        self._depth = reply[1]
        self.width, self.height = struct.unpack_from("<HH", reply, 16)

    def hear(self, events: int) -> None:
        """Have the server tell of events of the window, by their mask."""
        self._client.tell(_CHANGE_WINDOW, 0, struct.pack("<III", self.window, 1 << 11, events))

    def color(self, rgb: int) -> int:
        """Return the server's number for a colour, given as 0xRRGGBB."""
        if rgb not in self._colors:
            parts = (rgb >> 16 & 0xFF, rgb >> 8 & 0xFF, rgb & 0xFF)
            body = struct.pack("<I3H", self._colormap, *(part * 257 for part in parts))
            self._colors[rgb] = struct.unpack_from("<I", self._client.ask(_ALLOC_COLOR, 0, body), 16)[0]
        return self._colors[rgb]

    def text(self, text: str, doublings: int) -> Text:
        """Return a text, whose letters are twice as large for each doubling; what there is no letter for is a question mark."""
        key = (text, doublings)
        found = self._texts.get(key)
        if found is None:
            rows = self._drawn(text[:CHARACTERS_MAX])
            for _ in range(doublings):
                rows = doubled(rows)
            found = self._texts[key] = Text(self.letter_width * len(text[:CHARACTERS_MAX]) << doublings, rows)
        self._texts.move_to_end(key)
        while len(self._texts) > TEXTS_MAX:
            self._texts.popitem(last=False)
        return found

    # ------------------------------------------------------------------ a block of things, somewhere in the window

    def begin(self, width: int, height: int) -> int:
        """Return a black picture to draw in."""
        pixmap = self._client.new_id()
        self._client.tell(_CREATE_PIXMAP, self._depth, struct.pack("<IIHH", pixmap, self.window, width, height))
        self.fill(pixmap, 0, [(0, 0, width, height)])
        return pixmap

    def fill(self, drawable: int, rgb: int, rectangles: list[tuple[int, int, int, int]]) -> None:
        """Fill rectangles: x, y, width, height."""
        self._use(rgb)
        body = b"".join(struct.pack("<hhHH", *each) for each in rectangles if each[2] > 0 and each[3] > 0)
        self._client.tell(_FILL_RECTANGLES, 0, struct.pack("<II", drawable, self._gc) + body)

    def put(self, drawable: int, rgb: int, text: Text, x: int, y: int) -> None:
        """Draw a text, its upper left corner there."""
        if not text.width:
            return
        self._use(rgb)
        stride = (text.width + 31) // 32 * 4
        data = b"".join(row.to_bytes(stride, "little") for row in text.rows)
        if not self._client.screen.low_bit_left:
            data = data.translate(_MIRRORED)
        head = struct.pack("<IIHHhhBBxx", drawable, self._gc, text.width, len(text.rows), x, y, 0, 1)
        self._client.tell(_PUT_IMAGE, 0, head + data)

    def show(self, pixmap: int, x: int, y: int, width: int, height: int) -> None:
        """Show a picture at a place, and black around it; the picture is gone then."""
        body = struct.pack("<IIIhhhhHH", pixmap, self.window, self._gc, 0, 0, x, y, width, height)
        self._client.tell(_COPY_AREA, 0, body)
        self._client.tell(_FREE_PIXMAP, 0, struct.pack("<I", pixmap))
        right, below = x + width, y + height
        around = [
            (0, 0, self.width, y),
            (0, below, self.width, self.height - below),
            (0, y, x, height),
            (right, y, self.width - right, height),
        ]
        self.fill(self.window, 0, around)

    # ------------------------------------------------------------------ parts

    def _use(self, rgb: int) -> None:
        values = struct.pack("<IIII", self._gc, _FOREGROUND | _BACKGROUND, self.color(rgb), self.color(0))
        self._client.tell(_CHANGE_GC, 0, values)

    def _open_font(self) -> tuple[int, bool]:
        """Return a font, and whether it has more than the letters of western Europe."""
        refused: XAnswerError | None = None
        for name in FONTS:
            font = self._client.new_id()
            self._client.tell(_OPEN_FONT, 0, struct.pack("<IHxx", font, len(name)) + name.encode())
            try:
                self._client.ask(_QUERY_TEXT_EXTENTS, 1, struct.pack("<I", font) + b"\0M")
            except XAnswerError as error:
                refused = error
                continue
            return font, name.endswith("10646-1")
        raise XAnswerError("it has no letters") from refused

    def _drawn(self, text: str) -> Bits:
        """Have the server draw a text, and fetch it."""
        most = "\uffff" if self._wide else "\xff"
        text = "".join(letter if " " <= letter <= most else "?" for letter in text)
        if not text:
            return [0] * self.letter_height
        client = self._client
        width = self.letter_width * len(text)
        pixmap, gc = client.new_id(), client.new_id()
        client.tell(_CREATE_PIXMAP, 1, struct.pack("<IIHH", pixmap, self.window, width, self.letter_height))
        values = struct.pack("<III", 1, 0, self._font)
        client.tell(_CREATE_GC, 0, struct.pack("<III", gc, pixmap, _FOREGROUND | _BACKGROUND | _FONT) + values)
        body = struct.pack("<IIhh", pixmap, gc, 0, self._ascent) + text.encode("utf-16-be", "replace")
        client.tell(_IMAGE_TEXT_16, len(text), body)
        body = struct.pack("<IhhHHI", pixmap, 0, 0, width, self.letter_height, 1)
        data = client.ask(_GET_IMAGE, 1, body)[PACKET_BYTES:]
        client.tell(_FREE_GC, 0, struct.pack("<I", gc))
        client.tell(_FREE_PIXMAP, 0, struct.pack("<I", pixmap))
        if not client.screen.low_bit_left:
            data = data.translate(_MIRRORED)
        stride = len(data) // self.letter_height
        return [
            int.from_bytes(data[at : at + stride], "little") & ((1 << width) - 1)
            for at in range(0, stride * self.letter_height, stride)
        ]


def doubled(rows: Bits) -> Bits:
    """Return a picture twice as wide and high: corners of steps take the colour of both their neighbours (EPX)."""
    found = []
    for above, row, below in zip([0, *rows[:-1]], rows, [*rows[1:], 0], strict=True):
        left, right = row << 1, row >> 1
        upper_left = ~(left ^ above) & (left ^ below) & (above ^ right)
        upper_right = ~(above ^ right) & (above ^ left) & (right ^ below)
        lower_left = ~(below ^ left) & (below ^ right) & (left ^ above)
        lower_right = ~(right ^ below) & (right ^ above) & (below ^ left)
        mask = (1 << max(row.bit_length(), above.bit_length(), below.bit_length())) - 1
        quarters = [
            (row & ~where | of & where) & mask
            for where, of in ((upper_left, above), (upper_right, right), (lower_left, left), (lower_right, below))
        ]
        found += [_spread(quarters[0]) | _spread(quarters[1]) << 1, _spread(quarters[2]) | _spread(quarters[3]) << 1]
    return found


def _spread(row: int) -> int:
    """Return a row with an empty pixel after each of its own."""
    return int(f"{row:b}", 4)
