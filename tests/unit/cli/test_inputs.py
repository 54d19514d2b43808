"""Items of files and of standard input."""

import io
import shlex
import sys

import pytest

from p2pq.cli import inputs
from p2pq.cli.inputs import Grammar
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
    tasks = inputs.of_batch("-", null=False)
    assert (tasks.words, tasks.sources) == ((), (Source(("1234",)),))
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
        inputs.of_map(words, grammar=Grammar())


def test_sources_multiply_or_go_along_with_one_another(tmp_path):
    (tmp_path / "f").write_bytes(b"1\n2\n")
    (tmp_path / "g").write_bytes(b"3\n4\n")
    f, g = str(tmp_path / "f"), str(tmp_path / "g")

    def made(*words, files=()):
        tasks = inputs.of_map(words, files=files, grammar=Grammar())
        return tasks and (tasks.words, tasks.sources)

    assert made("x", "::::", f, g) == (("x",), (Source(("1", "2")), Source(("3", "4"))))
    assert made("x", "::::", f, "::::+", g) == (("x",), (Source(("1", "3", "2", "4"), 2),))
    assert made("x", ":::", "a", files=[f]) == (("x",), (Source(("1", "2")), Source(("a",))))
    assert made("x", ":::", files=[f]) is None


# What GNU parallel 20221122 prints with --dry-run, or as a tag.
@pytest.mark.parametrize(
    ("grammar", "line", "commands"),
    [
        ({"values_max": 2}, "e {1} {2} {} {#} ::: a b c", ["e a b a b 1", "e c  c 2"]),
        ({"values_max": 2}, "e {2}-{1} ::: a b c", ["e b-a", "e -c"]),
        ({"values_max": 2}, "e ::: a b ::: 1 2 3", ["e a 1 a 2", "e a 3 b 1", "e b 2 b 3"]),
        ({"values_max": 2}, "e {1}x{2} ::: a b ::: 1 2", ["e ax1", "e bx1"]),
        ({"values_max": 1}, "e ::: a b", ["e a", "e b"]),
        ({"values_max": 0}, "e hi {#} ::: a b", ["e hi 1", "e hi 2"]),
        ({"fill": "context"}, "e pre-{}-post ::: a b c", ["e pre-a-post pre-b-post pre-c-post"]),
        ({"fill": "context"}, "e {}x{#} {.} ::: a.1 b c", ["e a.1x1 bx1 cx1 a b c"]),
        ({"fill": "context"}, "e {1}-{2} {} ::: a.1 b c", ["e a.1-b a.1 b c"]),
        ({"fill": "context", "at_once": 2}, "e pre-{}-post ::: a b c", ["e pre-a-post pre-b-post", "e pre-c-post"]),
        ({"fill": "context", "values_max": 1}, "e ::: a b", ["e a", "e b"]),
        ({"fill": "values"}, "e pre-{}-post x {.} ::: a.1 b c", ["e pre-a.1 b c-post x a b c"]),
        ({"fill": "values"}, "e ::: a b ::: 1 2", ["e a 1 a 2 b 1 b 2"]),
        ({"link": True}, "e ::: a b c ::: 1 2", ["e a 1", "e b 2", "e c 1"]),
        ({"header": True}, "e {x} {y} {1} ::: x 1 2 ::: y 3 4", ["e 1 3 1", "e 1 4 1", "e 2 3 2", "e 2 4 2"]),
        ({"header": True}, "e {x.} {x/} {z} ::: x a/1.c", ["e a/1 1.c {z}"]),
        ({"header": True, "colsep": ","}, "e {b} {a} ::: a,b 1,2 3,4", ["e 2 1", "e 4 3"]),
        ({"values": ",,"}, "e ,, a ::: b", ["e a", "e :::", "e b"]),
    ],
)
def test_command_lines_are_those_of_gnu_parallel(grammar, line, commands):
    tasks = inputs.of_map(line.split(), grammar=Grammar(**grammar))
    assert [tasks.command(task) for task in range(tasks.count)] == commands


@pytest.mark.parametrize(("trim", "command"), [("n", "e ' a '"), ("l", "e 'a '"), ("r", "e ' a'"), ("lr", "e a")])
def test_blanks_at_the_ends_of_values(trim, command):
    assert inputs.of_map(["e", ":::", " a "], grammar=Grammar(trim=trim)).command(0) == command


def test_values_of_tasks_are_known_however_their_command_lines_are_made():
    def shown(line, **grammar):
        tasks = inputs.of_map(line.split(), grammar=Grammar(**grammar))
        return [(tasks.tag(task), tasks.values(task)) for task in range(tasks.count)], tasks.names, tasks.name

    assert shown("e ::: a ::: 1 2") == ([("a 1\t", ("a", "1")), ("a 2\t", ("a", "2"))], ("1", "2"), "")
    assert shown("e ::: a b c", values_max=2) == ([("a b\t", ("a", "b")), ("c\t", ("c",))], ("1",), "")
    assert shown("e x ::: a b", fill="values") == ([("a b\t", ("a", "b"))], ("1",), "e x")
    assert shown("e x ::: a b", values_max=0) == ([("a\t", ("a",)), ("b\t", ("b",))], ("1",), "e x")
    assert shown("e ::: k a ::: v 1", header=True) == ([("a 1\t", ("a", "1"))], ("k", "v"), "")


def test_as_many_values_as_fit_are_filled_in(monkeypatch):
    monkeypatch.setattr(inputs, "LINE_BYTES_MAX", 30)
    tasks = inputs.of_map(["echo", ":::", *["12345678"] * 5, "\u00e9" * 40], grammar=Grammar(fill="values"))
    assert [len(tasks.values(task)) for task in range(tasks.count)] == [2, 2, 1, 1]
    tasks = inputs.of_map(["e", ":::", *["1234"] * 6], grammar=Grammar(fill="values"))
    assert [len(tasks.values(task)) for task in range(tasks.count)] == [4, 2]


def test_tasks_in_another_order(tmp_path):
    numbers = [str(number) for number in range(50)]
    tasks = inputs.of_map(["e", ":::", *numbers, ":::", "a", "b"], grammar=Grammar(shuffle=True))
    found = [tasks.values(task) for task in range(tasks.count)]
    wanted = [(number, letter) for number in numbers for letter in "ab"]
    assert sorted(found) == sorted(wanted)
    assert found != wanted, "one in 100! times it is"
    (tmp_path / "f").write_text("\n".join(numbers))
    lines = inputs.of_batch(str(tmp_path / "f"), null=False, shuffle=True)
    assert sorted(lines.values(task)[0] for task in range(50)) == sorted(numbers)


@pytest.mark.parametrize(
    ("words", "grammar", "sentence"),
    [
        (["e", ":::"], {"header": True}, "a source has no first value that could name it"),
        (["e", ":::", "a", "1", ":::", "a", "2"], {"header": True}, "two columns are called 'a'"),
    ],
)
def test_what_cannot_be_read(words, grammar, sentence):
    with pytest.raises(UsageError, match=sentence):
        inputs.of_map(words, grammar=Grammar(**grammar))


def test_a_source_without_values_makes_no_tasks_with_any_grammar():
    for grammar in ({"link": True}, {"fill": "values"}, {"values_max": 2}, {"shuffle": True}):
        assert inputs.of_map(["e", ":::", "a", ":::"], grammar=Grammar(**grammar)) is None
    assert inputs.of_map(["e", ":::", "name"], grammar=Grammar(header=True)) is None


def test_more_replacement_strings_make_command_lines_and_may_leave_tasks_out():
    tasks = inputs.of_map(["echo", "{2choose_k}", "{1..}", ":::", "a.x.y", "b", ":::", "b"], grammar=Grammar(plus=True))
    assert [tasks.command(task) for task in range(tasks.count)] == ["echo b a"]
    assert (tasks.values(0), tasks.name, tasks.tag(0)) == (("a.x.y", "b"), "echo {2choose_k} {1..}", "a.x.y b\t")
    assert inputs.of_map(["{uniq}", ":::", "a", ":::", "a"], grammar=Grammar(plus=True)) is None


def test_columns_keep_their_blanks_if_they_are_told_to():
    words = ["e", "{1}{2}", ":::", " a ; b "]
    found = {trim: inputs.of_map(words, grammar=Grammar(colsep=";", trim=trim)) for trim in (None, "n", "l")}
    assert {trim: tasks.values(0) for trim, tasks in found.items()} == {
        None: ("a", "b"),
        "n": (" a ", " b "),
        "l": ("a ", "b "),
    }


def test_a_quoted_command_is_for_no_shell():
    tasks = inputs.of_map(["perl", "$a;{}{1.}", "", ":::", "it's x.y"], grammar=Grammar(quote=True))
    assert shlex.split(tasks.command(0)) == ["perl", "$a;it's x.yit's x", ""]


def test_no_value_gets_out_of_a_quoted_command_that_is_filled():
    words = ["echo", "a b{}", ":::", "1", "; touch x; "]
    tasks = inputs.of_map(words, grammar=Grammar(quote=True, fill="context"))
    assert shlex.split(tasks.command(0)) == ["echo", "a b1", "b; touch x; "]
    many = inputs.of_map(["e", "'" * 8000 + "{}", ":::", "a", "b"], grammar=Grammar(quote=True, fill="context"))
    assert many.count == 2, "what quotes take counts, too"
