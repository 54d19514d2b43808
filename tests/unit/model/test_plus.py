"""More replacement strings; what they give was looked up in GNU parallel."""

import pytest

from p2pq.errors import UsageError
from p2pq.model.params import ARGV_CHARS_MAX
from p2pq.model.plus import render


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("e {..} {+/} {+.} {/..} {+..} {...}", "d.x/a.tar.gz", "e d.x/a d.x gz a tar.gz d.x/a.tar.gz"),
        ("e {..}{+/}{+.}", "b", "e b''''"),
        ("e {...} {/...} {+...}", "d/a.b.c.d.e", "e d/a.b a.b c.d.e"),
        ("e {##} {0#} {#}", "x", "e 12 03 3"),
        ("e {:1} {:1:2} {:-none}", "abcd", "e bcd bc abcd"),
        ("e {:-none} {:-}", "", "e none ''"),
        ("e {%_demo} {#demo_} {/demo_/} {//o/0}", "mycode_demo", "e mycode mycode_demo mycode_demo myc0de_dem0"),
        ("e {%_demo} {#demo_} {/demo_/} {//o/0}", "demo_foo", "e demo_foo foo foo dem0_f00"),
        ("e {%.*} {%%.*} {#.*o} {##.*o}", "a.foo.bar.o", "e a.foo.bar.o '' o.bar.o ''"),
        ("e {^m} {^^o} {,M} {,,M}", "momo", "e Momo mOmO momo momo"),
        ("e {^m} {^^o} {,M} {,,M}", "MOMO", "e MOMO MOMO mOMO mOmO"),
        ("e {.} {..}", "a b.c.d", "e 'a b.c' 'a b'"),
        ("e {..} {}", "{} {..} $x.y.z", "e '{} {..} $x' '{} {..} $x.y.z'"),
        ("e {other}", "x", "e {other} x"),
    ],
)
def test_they_are_filled_in(text, value, found):
    assert render(text.split(" "), (value,), 3, 12) == found


@pytest.mark.parametrize(
    ("text", "values", "found"),
    [
        ("e {choose_k}", "AB", "e A B"),
        ("e {choose_k}", "BA", None),
        ("e {2choose_k} {1}", "AB", "e B A"),
        ("e {1uniq}+{2uniq}", "AB", "e A+B"),
        ("e {uniq}", "AA", None),
        ("e {2%x} {-1^b} {7..}", ["a", "bx"], "e b Bx "),
    ],
)
def test_of_several_values(text, values, found):
    assert render(text.split(" "), tuple(values), 1, 9) == found


def test_what_is_no_regular_expression_is_named():
    with pytest.raises(UsageError, match=r"\{%\(\} holds no regular expression"):
        render(["e", "{%(}"], ("x",), 1, 1)


def test_a_line_that_is_too_long_is_refused():
    with pytest.raises(UsageError, match="longer than"):
        render(["{:0}"] * 100, ("x" * (ARGV_CHARS_MAX // 50),), 1, 1)
