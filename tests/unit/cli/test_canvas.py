"""Letters and rectangles, on a real X server."""

import struct
from pathlib import Path

import pytest

from p2pq.cli import canvas
from p2pq.cli.canvas import TEXTS_MAX, Canvas, doubled
from p2pq.daemon.sensors.xclient import XAnswerError, XClient
from tests.desktopkit import x_server

SIZE = (300, 200)
WHITE = 0xFFFFFF


def rows(*picture: str) -> list[int]:
    return [sum(1 << at for at, pixel in enumerate(row) if pixel == "#") for row in picture]


def test_a_step_becomes_a_slope_and_corners_are_rounded() -> None:
    assert doubled(rows("#.", ".#")) == rows("##..", "###.", ".###", "..##")
    assert doubled(rows("##", "##")) == rows(".##.", "####", "####", ".##.")
    assert doubled(rows("..", "..")) == [0] * 4


@pytest.mark.desktop
def test_texts_and_rectangles_are_where_and_what_they_were_to_be(tmp_path: Path) -> None:
    with x_server(tmp_path, f"{SIZE[0]}x{SIZE[1]}") as real:
        client = XClient(real.number, b"", answer_s=20)
        made = Canvas(client, client.screen.root)
        assert (made.width, made.height) == SIZE
        small, large = made.text("I", 0), made.text("I", 2)
        assert (small.width, len(small.rows)) == (made.letter_width, made.letter_height)
        assert (large.width, len(large.rows)) == (4 * made.letter_width, 4 * made.letter_height)
        assert made.text("\N{SNOWMAN}\x07", 0).rows == made.text("??" if not made._wide else "\N{SNOWMAN}?", 0).rows
        made.fill(made.window, 0x445566, [(0, 0, *SIZE)])
        picture = made.begin(100, 80)
        made.fill(picture, 0xFF0000, [(90, 70, 10, 10), (0, 0, -5, 3)])
        made.put(picture, WHITE, large, 20, 10)
        made.put(picture, WHITE, made.text("", 1), 0, 0)
        made.show(picture, 150, 100, 100, 80)
        client.ask(43, 0, b"")
        width, height, colors = real.pixels()
        assert (width, height) == SIZE

        def pixel(x: int, y: int) -> int:
            at = 3 * (y * width + x)
            return int.from_bytes(colors[at : at + 3], "big")

        red = {(x, y) for x in range(width) for y in range(height) if pixel(x, y) == 0xFF0000}
        assert red == {(x, y) for x in range(240, 250) for y in range(170, 180)}
        white = {(x, y) for x in range(width) for y in range(height) if pixel(x, y) == WHITE}
        assert white == {
            (170 + x, 110 + y) for y, row in enumerate(large.rows) for x in range(large.width) if row >> x & 1
        }
        assert white
        assert {pixel(x, y) for x in range(width) for y in range(height)} == {0, WHITE, 0xFF0000}
        client.close()


@pytest.mark.desktop
def test_texts_are_kept_as_they_were_drawn_but_not_all_for_ever(tmp_path: Path) -> None:
    with x_server(tmp_path, "100x100") as real:
        client = XClient(real.number, b"", answer_s=20)
        made = Canvas(client, client.screen.root)
        kept = made.text("kept", 1)
        for number in range(TEXTS_MAX - 1):
            made.text(str(number), 0)
        assert made.text("kept", 1) is kept
        for number in range(TEXTS_MAX):
            made.text(str(number), 1)
        assert made.text("kept", 1) is not kept
        assert made.text("x" * 5000, 0).width == canvas.CHARACTERS_MAX * made.letter_width
        client.close()


@pytest.mark.desktop
def test_what_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with x_server(tmp_path, "100x100") as real:
        client = XClient(real.number, b"", answer_s=20)
        with pytest.raises(XAnswerError):
            Canvas(client, 0x7777)
        monkeypatch.setattr(canvas, "FONTS", ("none-of-these",))
        with pytest.raises(XAnswerError, match="no letters"):
            Canvas(client, client.screen.root)
        client.close()


@pytest.mark.desktop
def test_a_window_that_changes_its_size_tells_so(tmp_path: Path) -> None:
    with x_server(tmp_path, "100x100") as real:
        client = XClient(real.number, b"", answer_s=20)
        window = client.new_id()
        client.tell(1, 0, struct.pack("<IIhhHHHHII", window, client.screen.root, 0, 0, 50, 40, 0, 1, 0, 0))
        made = Canvas(client, window)
        made.hear(1 << 17)
        client.tell(12, 0, struct.pack("<IHxxII", window, 1 << 2 | 1 << 3, 70, 60))
        client.ask(43, 0, b"")
        assert [event[0] for event in client.events()] == [22]
        made.resize()
        assert (made.width, made.height) == (70, 60)
        client.close()
