"""The grammar of GNU parallel. The expected command lines are those that version 20221122 of it prints with ``--dry-run``."""

import shlex

import pytest

from p2pq.errors import UsageError
from p2pq.model import template
from p2pq.model.params import ARGV_CHARS_MAX, VALUE_CHARS_MAX
from p2pq.model.sources import COLUMNS_MAX, SOURCES_MAX, Source, count, values
from p2pq.model.template import CELLS_MAX, Given, argv, combine, quote, render, split_columns, split_sources


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("a.b/c", "a.b/c a.b/c c a.b c"),
        ("a/b.c.d", "a/b.c.d a/b.c b.c.d a b.c"),
        (".bashrc", ".bashrc '' .bashrc . ''"),
        ("/x", "/x /x x / x"),
        ("x/", "x/ x/ '' . ''"),
        ("a/b/", "a/b/ a/b/ '' a ''"),
        ("", "'' '' '' . ''"),
        ("/", "/ / '' / ''"),
        ("//", "// // '' / ''"),
        ("///", "/// /// '' / ''"),
        ("//a//b//", "//a//b// //a//b// '' //a ''"),
        ("a//b", "a//b a//b b a b"),
        ("a//", "a// a// '' . ''"),
        ("a.", "a. a a. . a"),
        ("..", ".. . .. . ."),
        (".", ". '' . . ''"),
        ("x/.c", "x/.c x/ .c x ''"),
        ("d e/f g.h i", "'d e/f g.h i' 'd e/f g' 'f g.h i' 'd e' 'f g'"),
    ],
)
def test_a_value_is_filled_in_whole_and_in_part(value, line):
    assert render(["echo", "{}", "{.}", "{/}", "{//}", "{/.}"], [value], 1) == f"echo {line}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("echo", "echo a/b.c 'd e'"),
        ("echo {}", "echo a/b.c 'd e'"),
        ("echo pre{}post", "echo prea/b.c 'd e'post"),
        ("echo {.} {/} {//} {/.}", "echo a/b 'd e' b.c 'd e' a . b 'd e'"),
        ("echo {1} {2} {3}", "echo a/b.c 'd e' "),
        ("echo {3} {-3} {3//}", "echo   "),
        ("echo {-1} {-2}", "echo 'd e' a/b.c"),
        ("echo {1.} {1/} {1//} {-2/.}", "echo a/b b.c a b"),
        ("echo {01} {0} {0/}", "echo a/b.c a/b.c 'd e' b.c 'd e'"),
        ("echo {1 } {1 .}", "echo a/b.c a/b"),
        ("echo {#} {}", "echo 7 a/b.c 'd e'"),
        ("echo {#}", "echo 7"),
        ("echo '{1}' \"{2}\"", "echo 'a/b.c' \"'d e'\""),
        ("awk '{print $1}'", "awk '{print $1}' a/b.c 'd e'"),
        ("echo ${x} {a,b}", "echo ${x} {a,b} a/b.c 'd e'"),
        ("echo {..} {:} {+/} {##} {1.1} { 1}", "echo {..} {:} {+/} {##} {1.1} { 1} a/b.c 'd e'"),
        ("echo {{1}} {1.}} {{1.}", "echo {a/b.c} a/b} {a/b"),
        ("echo {=} {= =", "echo {=} {= = a/b.c 'd e'"),
        ("echo { }", "echo { } a/b.c 'd e'"),
        ("echo {12345678901}", "echo {12345678901} a/b.c 'd e'"),
        ("cat {1} | sed s/{1/.}/x/ > {1.}.out", "cat a/b.c | sed s/b/x/ > a/b.out"),
    ],
)
def test_a_template_is_kept_but_for_replacement_strings(words, line):
    assert render(words.split(" "), ["a/b.c", "d e"], 7) == line
    assert render([words], ["a/b.c", "d e"], 7) == line


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("{} b", "echo a b"),
        ("x{/} {}", "xecho a echo a"),
        ('"{}" {}', '"echo a" echo a'),
        ("{#} {}", "1 echo a"),
        ("{1.}", "echo a"),
        (" {} {}", " 'echo a' 'echo a'"),
        ("\t{}", "\t'echo a'"),
        ("V={} {}", "V='echo a' 'echo a'"),
        ("x\n{}", "x\n'echo a'"),
        ("{", "{ 'echo a'"),
    ],
)
def test_values_that_choose_the_command_are_not_quoted(words, line):
    assert render([words], ["echo a"], 1) == line


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("it's", """'it'"'"'s'"""),
        ("$x", "'$x'"),
        ("a;b", "'a;b'"),
        ("*", "'*'"),
        ("~u", "'~u'"),
        ("-n", "-n"),
        ("ü", "'ü'"),
        ("{} {#}", "'{} {#}'"),
        ("a\nb", "'a\nb'"),
    ],
)
def test_a_value_is_one_word_for_the_shell_and_not_filled_in_itself(value, quoted):
    assert render(["echo", "{}", "{1}"], [value], 1) == f"echo {quoted} {quoted}"
    assert render(["echo"], [value], 1) == f"echo {quoted}"


@pytest.mark.parametrize(
    ("words", "count", "spread"),
    [
        (("e", "pre-{}-post"), 2, "e pre-{1}-post pre-{2}-post"),
        (("e",), 2, "e {1} {2}"),
        (("e 'a{.}b'", "{#}", "{2}", "{/}{//}"), 2, "e 'a{1.}b' 'a{2.}b' {#} {2} {1/}{1//} {2/}{2//}"),
        (("{}",), 1, "{1}"),
        (("e", "{1}"), 3, "e {1}"),
        ((), 2, ""),
    ],
)
def test_each_value_has_a_word_of_its_own(words, count, spread):
    assert template.spread(words, count) == (spread,)


def test_quoted_words_are_repeated_before_they_are_quoted():
    words = ("e", "a b{}c d", "", "{#}'")
    (line,) = template.spread(words, 2, quoted=True)
    assert shlex.split(line) == ["e", "a b{1}c", "b{2}c d", "", "{#}'"]
    assert template.spread(("a b",), 2, quoted=True) == ("'a b' {1} {2}",)


def test_columns_have_names():
    words = ("e", "{a}{ab.}{b/}", "{c} {a.x}")
    assert template.name_columns(words, ("ab", "a", "")) == ("e", "{2}{1.}{b/}", "{c} {a.x}")
    assert template.name_columns(words, ("",)) == words
    with pytest.raises(UsageError, match="two columns are called 'a'"):
        template.name_columns(words, ("a", "b", "a"))


def test_a_text_that_is_no_command_line():
    assert template.replaces("a{1/}")
    assert not template.replaces("a{b}")
    assert template.fill("out/{1/}-{#}.{2}", ("x/a b", "c"), 3) == "out/a b-3.c"
    with pytest.raises(UsageError, match="not supported"):
        template.fill("{%}", ("a",), 1)


def test_rows_may_end_with_a_short_one():
    assert template.rows([("a", "b"), ("c",)]) == (Source(("a", "b", "c"), 2),)
    with pytest.raises(UsageError, match="columns"):
        template.rows([("a",) * (COLUMNS_MAX + 1)])


def test_sources_begin_with_what_was_chosen():
    command, given = split_sources(("x", ":::", ",", "a", ",+", "b", "::", "f"), values=",", files="::")
    assert command == ("x", ":::")
    assert given == (Given("values", ("a",)), Given("values", ("b",), linked=True), Given("files", ("f",)))
    assert split_sources((",+", "a"), values=",")[1] == (Given("values", ("a",), linked=True),)


def test_the_first_source_is_linked_to_nothing():
    assert rows(("a b", True), ("1 2 3", True)) == ["a 1", "b 2"]
    assert rows(("a b", True), ("1 2", False)) == ["a 1", "a 2", "b 1", "b 2"]


def test_quoted_words_are_what_they_are_but_for_replacement_strings():
    assert quote(["a", "$x {}", "{1.}'", "", "{#}"]) == ("a", "'$x '{}", "{1.}''\"'\"''", "''", "{#}")


def test_without_words_the_values_are_the_command_line():
    assert render([], ["echo {#} {}; true"], 3) == "echo {#} {}; true"
    assert render([], ["a b", "c"], 3) == "a b c"
    assert render([""], ["a b"], 3) == " 'a b'"


def test_without_values_nothing_is_filled_in_or_appended():
    assert render(["echo", "a"], [], 1) == "echo a"
    assert render(["echo", "{}", "{2}"], [], 1) == "echo  "
    assert render([], [], 1) == ""


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["echo", "{%}"], "use {#}"),
        (["echo", "{= s/a/b/ =}"], "change the value in the command"),
        (["echo", "{=", "$_++", "=}"], "change the value in the command"),
        (["echo", "{==}"], "change the value in the command"),
        (["echo", "a\0b"], "zero byte"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(words, reason):
    with pytest.raises(UsageError, match=reason):
        render(words, ["v"], 1)


@pytest.mark.parametrize("words", [["echo", "{}"], ["echo"], ["{}"], []])
def test_a_value_with_a_zero_byte_is_refused(words):
    with pytest.raises(UsageError, match="of task 12 holds a zero byte"):
        render(words, ["a\0b"], 12)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["a" * (ARGV_CHARS_MAX + 1)], []),
        (["{}"], ["v" * VALUE_CHARS_MAX] * 40),
        (["echo"], ["v" * VALUE_CHARS_MAX] * 40),
        ([], ["v" * VALUE_CHARS_MAX] * 40),
        (["{}" * 1000], ["v" * VALUE_CHARS_MAX]),
        (["{//}{//}" * 250_000], ["/" + "v" * VALUE_CHARS_MAX]),
        (["{#}" * 500_000], ["v"]),
    ],
)
def test_a_command_line_that_would_grow_without_bound_is_refused(words, values):
    with pytest.raises(UsageError, match=f"of task 123456 is longer than {ARGV_CHARS_MAX}"):
        render(words, values, 123456)


# -- how a command line is run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hostname", ("hostname",)),
        ("sleep 1", ("sleep", "1")),
        ("/bin/true", ("/bin/true",)),
        ("./run.sh -x --rate=5 a/b.c", ("./run.sh", "-x", "--rate=5", "a/b.c")),
        ("  a\t b  ", ("a", "b")),
        ("7z x +1,2:3@4%5^6 if true =", ("7z", "x", "+1,2:3@4%5^6", "if", "true", "=")),
        ("cat 'a b'", ("cat", "a b")),
        ("cat '$x;\n*' ''", ("cat", "$x;\n*", "")),
        ("""cat 'it'"'"'s' x'y 'z""", ("cat", "it's", "xy z")),
        ("""cat "'" '"'""", ("cat", "'", '"')),
        ("g++ a.c", ("g++", "a.c")),
    ],
)
def test_a_plain_line_is_run_as_its_words(line, words):
    assert argv(line) == words
    assert shlex.split(line) == list(words)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "  ",
        "a; b",
        "a | b",
        "a && b",
        "a & b",
        "a > b",
        "a < b",
        "a\nb",
        "a\rb",
        "a $x",
        "a `b`",
        "(a)",
        "{ a",
        "! a",
        "a b\\c",
        'a "b"',
        "a *",
        "a b?",
        "a [b]",
        "[ a",
        "a {b,c}",
        "a ~",
        "~/a",
        "a #b",
        "a=b c",
        "a=b",
        "%1",
        "-a",
        "'a' b",
        "a 'b",
        "a b'",
        "a 'b\0'",
        "a ü",
        "a\xa0b",
    ],
)
def test_a_line_that_needs_a_shell_is_given_to_one(line):
    assert argv(line) == ("/bin/sh", "-c", line)


@pytest.mark.parametrize(
    "program",
    [
        *(
            "case",
            "do",
            "done",
            "elif",
            "else",
            "esac",
            "fi",
            "for",
            "function",
            "if",
            "in",
            "select",
            "then",
            "time",
            "until",
        ),
        *(
            "while",
            ".",
            "alias",
            "break",
            "cd",
            "chdir",
            "command",
            "continue",
            "echo",
            "eval",
            "exec",
            "exit",
            "export",
        ),
        *(
            "false",
            "fg",
            "getopts",
            "hash",
            "jobs",
            "kill",
            "let",
            "local",
            "printf",
            "pwd",
            "read",
            "readonly",
            "return",
        ),
        *("set", "shift", "source", "test", "times", "trap", "true", "type", "typeset", "ulimit", "umask", "unalias"),
        *("unset", "wait"),
    ],
)
def test_a_word_of_the_shell_is_given_to_a_shell(program):
    assert argv(f"{program} a") == ("/bin/sh", "-c", f"{program} a")
    assert argv(f"/bin/{program} a") == (f"/bin/{program}", "a")


def test_a_long_word_is_split_at_once():
    word = "a" * (ARGV_CHARS_MAX - 2)
    assert argv(f"b {word}") == ("b", word)


# -- input sources ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "command", "sources"),
    [
        ("", "", []),
        ("echo -- {}", "echo -- {}", []),
        ("echo ::: a b", "echo", [("values", "a b", False)]),
        ("::: a", "", [("values", "a", False)]),
        ("echo :::", "echo", [("values", "", False)]),
        ("echo ::: a ::: b c", "echo", [("values", "a", False), ("values", "b c", False)]),
        ("echo ::: a :::+ b", "echo", [("values", "a", False), ("values", "b", True)]),
        ("echo :::: f g", "echo", [("files", "f", False), ("files", "g", False)]),
        ("echo ::: a ::::+ f g", "echo", [("values", "a", False), ("files", "f", True), ("files", "g", True)]),
        ("echo :::: f :::+ a ::: b", "echo", [("files", "f", False), ("values", "a", True), ("values", "b", False)]),
        ("echo ::::: :: ::: a", "echo ::::: ::", [("values", "a", False)]),
    ],
)
def test_sources_follow_the_command(words, command, sources):
    expected = tuple(Given(kind, tuple(given.split()), linked) for kind, given, linked in sources)
    assert split_sources(words.split()) == (tuple(command.split()), expected)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("echo ::::", "needs a file"),
        ("echo :::: ::: a", "needs a file"),
        ("echo ::: a ::::+", "::::\\+ needs a file"),
    ],
)
def test_sources_that_cannot_be_are_refused(words, reason):
    with pytest.raises(UsageError, match=reason):
        split_sources(words.split())


def rows(*columns, separator=None):
    """Return the values of all tasks, each as one text."""
    sources = combine([(given.split(" "), linked) for given, linked in columns], separator=separator)
    assert sources is not None
    return [" ".join(values(sources, index)) for index in range(count(sources))]


def test_sources_multiply_and_linked_ones_do_not():
    assert rows(("a b", False), ("x y", False)) == ["a x", "a y", "b x", "b y"]
    assert rows(("a b", False), ("x y", True)) == ["a x", "b y"]
    assert rows(("a b", False), ("1 2", True), ("x y", False)) == ["a 1 x", "a 1 y", "b 2 x", "b 2 y"]
    assert rows(("a b", False), ("1 2", False), ("x y", True), ("p q", True)) == [
        "a 1 x p",
        "a 2 y q",
        "b 1 x p",
        "b 2 y q",
    ]


def test_the_shortest_of_linked_sources_decides():
    assert rows(("a b c", False), ("1 2", True)) == ["a 1", "b 2"]
    assert rows(("a b", False), ("1 2 3", True)) == ["a 1", "b 2"]
    assert rows(("a b", False), ("X Y", False), ("1 2 3", True)) == ["a X 1", "a Y 2", "b X 1", "b Y 2"]


def test_a_source_linked_to_none_stands_for_itself():
    assert combine([(["a", "b"], True)]) == (Source(("a", "b")),)


def test_linked_sources_are_columns_of_one():
    assert combine([(["a", "b"], False), (["1", "2"], True), (["x"], False)]) == (
        Source(("a", "1", "b", "2"), 2),
        Source(("x",)),
    )


def test_columns_of_linked_sources_stand_beside_each_other():
    assert rows(("a,b c,d", False), ("1,2 3,4", True), separator=",") == ["a b 1 2", "c d 3 4"]
    assert rows(("a,b c,d", False), ("1,2 3,4", False), separator=",") == ["a b 1 2", "a b 3 4", "c d 1 2", "c d 3 4"]


def test_without_sources_there_is_one_task_and_without_a_value_none():
    assert combine([]) == ()
    assert combine([([], False)]) is None
    assert combine([(["a"], False), ([], False)]) is None
    assert combine([(["a"], False), ([], True)]) is None
    assert combine([([], False)], separator=",") is None


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ([(["a"], False)] * (SOURCES_MAX + 1), f"{SOURCES_MAX + 1} input sources"),
        ([(["a"], True)] * (COLUMNS_MAX + 1), f"{COLUMNS_MAX + 1} columns"),
        ([(["v" * (VALUE_CHARS_MAX + 1)], False)], "longer than"),
        ([(["a\0"], False)], "zero byte"),
    ],
)
def test_input_beyond_the_bounds_is_refused(columns, reason):
    with pytest.raises(UsageError, match=reason):
        combine(columns)


@pytest.mark.parametrize(
    ("lines", "separator", "source"),
    [
        (["a\tb", "c\td"], "\t", Source(("a", "b", "c", "d"), 2)),
        (["a,b", "c", ""], ",", Source(("a", "b", "c", "", "", ""), 2)),
        (["a  b", " x", "y "], " +", Source(("a", "b", "", "x", "y", ""), 2)),
        (["a,", ","], ",", Source(("a", "", "", ""), 2)),
        ([" a , b\t"], ",", Source(("a", "b"), 2)),
        (["a,b;c"], "(,|;)", Source(("a", ",", "b", ";", "c"), 5)),
        (["a,b;c"], "(,)|;", Source(("a", ",", "b", "", "c"), 5)),
        (["aXbXc"], "X", Source(("a", "b", "c"), 3)),
        ([], ",", Source((), 1)),
    ],
)
def test_lines_are_split_into_columns(lines, separator, source):
    assert split_columns(lines, separator) == source


@pytest.mark.parametrize("separator", ["[", "a{99999999999999999999}", "(" * 5000 + ")" * 5000])
def test_a_separator_that_is_no_expression_is_refused(separator):
    with pytest.raises(UsageError, match="is not a regular expression"):
        split_columns(["a"], separator)


@pytest.mark.parametrize("separator", ["", " *", "$"])
def test_a_separator_that_matches_nothing_at_all_is_refused(separator):
    with pytest.raises(UsageError, match="must match one or more"):
        split_columns(["a"], separator)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["," * COLUMNS_MAX], f"{COLUMNS_MAX + 1} columns"),
        (["v" * (VALUE_CHARS_MAX + 1)], "longer than"),
        (["a,\0"], "zero byte"),
    ],
)
def test_columns_beyond_the_bounds_are_refused(lines, reason):
    with pytest.raises(UsageError, match=reason):
        split_columns(lines, ",")


def test_one_wide_row_does_not_make_all_others_as_wide_without_bound(monkeypatch):
    assert CELLS_MAX == 20_000_000
    monkeypatch.setattr(template, "CELLS_MAX", 100)
    assert split_columns(["," * 9] + ["a"] * 9, ",").rows() == 10
    with pytest.raises(UsageError, match="11 rows of 10 columns; the most is 100"):
        split_columns(["," * 9] + ["a"] * 10, ",")
