"""Items of files and of standard input."""

import io
import sys

import pytest

from p2pq.cli import inputs
from p2pq.errors import UsageError
from p2pq.model.sources import Source


@pytest.mark.parametrize(
    ("data", "null", "items"),
    [
        (b"", False, []),
        (b"\n", False, [""]),
        (b"a\nb", False, ["a", "b"]),
        (b"a\r\n\n b \n", False, ["a\r", "", " b "]),
        (b"caf\xc3\xa9\xe2\x80\xa8x\x0cy\n", False, ["caf\u00e9\u2028x\x0cy"]),
        (b"a\nb\0c\0", True, ["a\nb", "c"]),
        (b"\0\0", True, ["", ""]),
    ],
)
def test_items(tmp_path, data, null, items):
    (tmp_path / "f").write_bytes(data)
    assert inputs.Inputs(null=null).read(str(tmp_path / "f")) == items


@pytest.fixture
def typed_in(monkeypatch):
    def put(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return put


def test_standard_input_is_read_once(typed_in):
    typed_in(b"a\n")
    once = inputs.Inputs(null=False)
    assert once.read("-") == ["a"]
    with pytest.raises(UsageError, match="standard input can be read only once; write it to a file"):
        once.read("-")


def test_what_is_no_text_is_found_by_its_line(typed_in, tmp_path):
    (tmp_path / "f").write_bytes(b"a\nb\xff\n")
    with pytest.raises(UsageError, match=r"/f is not UTF-8 text in line 2; write it in UTF-8"):
        inputs.of_batch(str(tmp_path / "f"), null=False)
    typed_in(b"\xff")
    with pytest.raises(UsageError, match=r"^standard input is not UTF-8 text in line 1"):
        inputs.of_batch("-", null=False)


def test_input_has_a_limit(typed_in, monkeypatch):
    monkeypatch.setattr(inputs, "FRAME_BYTES_MAX", 4)
    typed_in(b"1234")
    assert inputs.of_batch("-", null=False) == (Source(("1234",)),)
    typed_in(b"12345")
    with pytest.raises(UsageError, match="split it into several jobs"):
        inputs.of_batch("-", null=False)


@pytest.mark.parametrize("data", [b"a\0b\n", b"x" * 65_537])
def test_an_item_that_no_command_can_be_given(typed_in, data):
    typed_in(data)
    with pytest.raises(UsageError, match="put it into a file"):
        inputs.of_batch("-", null=False)


def test_so_many_tasks_are_too_many(tmp_path):
    (tmp_path / "f").write_bytes(b"\n" * 4000)
    words = ["x", "::::", str(tmp_path / "f"), str(tmp_path / "f")]
    with pytest.raises(UsageError, match="makes 16000000 tasks; the most is 10000000"):
        inputs.of_map(words, files=[], null=False, colsep=None)


def test_sources_multiply_or_go_along_with_one_another(tmp_path):
    (tmp_path / "f").write_bytes(b"1\n2\n")
    (tmp_path / "g").write_bytes(b"3\n4\n")
    f, g = str(tmp_path / "f"), str(tmp_path / "g")

    def made(*words, files=()):
        return inputs.of_map(words, files=files, null=False, colsep=None)

    assert made("x", "::::", f, g) == (("x",), (Source(("1", "2")), Source(("3", "4"))))
    assert made("x", "::::", f, "::::+", g) == (("x",), (Source(("1", "3", "2", "4"), 2),))
    assert made("x", ":::", "a", files=[f]) == (("x",), (Source(("1", "2")), Source(("a",))))
    assert made("x", ":::", files=[f]) == (("x",), None)
