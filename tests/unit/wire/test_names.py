"""security.md H54: names of a tree."""

import pytest

from p2pq.errors import Reject
from p2pq.wire import names


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "a//b",
        "a/",
        "a/./b",
        "../a",
        "a/../b",
        "a/..",
        "nul\0byte",
        "n" * 256,
        "é" * 128,
        "a/" * 600 + "a",
        "a/" * 128 + "a",
        "/".join(["n" * 255] * 17),
        "surrogate\udcff",
    ],
)
def test_unsafe_paths_are_refused(path):
    with pytest.raises(Reject):
        names.check_path(path)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "n" * 256, "\udc80"])
def test_unsafe_names_are_refused(name):
    with pytest.raises(Reject):
        names.check_name(name)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("new\nline", "control"),
        ("esc\x1b[31m", "control"),
        ("c1\x9b", "control"),
        ("rtl\u202etxt.exe", "direction"),
        ("zero\u200bwidth", "invisible"),
        ("..\\", "backslash"),
        ("e\u0301", "NFC"),
        ("con.txt", "device"),
        ("a/NUL", "device"),
        ("dot.", "dot or a space"),
        ("space /x", "dot or a space"),
        ("dot./x", "dot or a space"),
    ],
)
def test_odd_paths_travel_with_a_warning(path, reason):
    names.check_path(path)
    assert reason in (names.odd_name(path) or "")
    (warning,) = names.odd_names([path])
    assert reason in warning
    assert "\n" not in warning
    assert "\x1b" not in warning


@pytest.mark.parametrize(
    "path", ["main.py", "a/b c/d-1_2.tar.gz", "ünïcode/文.txt", ".gitignore", "-rf", "console.py", "~"]
)
def test_common_paths_get_no_warning(path):
    names.check_path(path)
    assert names.odd_names([path]) == []


@pytest.mark.parametrize(("first", "twin"), [("Readme", "README"), ("\u00e9", "e\u0301"), ("stra\u00dfe", "STRASSE")])
def test_twins_get_a_warning(first, twin):
    assert len(names.odd_names([first, twin])) == 1
    assert names.odd_names([first, "other"]) == []


def test_warnings_are_bounded():
    warnings = names.odd_names(f"a{n}\n" for n in range(100))
    assert len(warnings) == names.WARNINGS_MAX + 1
    assert warnings[-1] == "and 80 more odd names"


def test_limits_are_inclusive():
    names.check_path("n" * 255)
    names.check_path("/".join(["a"] * 128))
    names.check_path("/".join(["n" * 255] * 15 + ["n" * 254]))


@pytest.mark.parametrize(
    ("path", "target", "passed", "reached"),
    [
        ("l", "a", ("",), "a"),
        ("d/l", "../a", ("d", ""), "a"),
        ("d/l", "./x//y", ("d", "d/x"), "d/x/y"),
        ("d/l", "..", ("d",), ""),
        ("d/l", ".", (), "d"),
    ],
)
def test_symlink_targets_are_followed_by_their_letters(path, target, passed, reached):
    assert names.walk_target(path, target) == (passed, reached)


@pytest.mark.parametrize(
    "target",
    ["", "/etc/passwd", "..", "../x", "a/../../x", "a\0", "x" * 4096, "\udcff", "a/" * 200],
)
def test_symlink_targets_that_leave_are_refused(target):
    with pytest.raises(Reject):
        names.walk_target("l", target)


def test_display_is_safe_and_short():
    assert names.display("a\x1b[2J\u202e\n\udcff") == "a\ufffd[2J\ufffd\ufffd\ufffd"
    assert names.display("plain é") == "plain é"
    assert len(names.display("x" * 1000)) == 200
    assert names.display("x" * 200) == "x" * 200
