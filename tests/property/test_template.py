"""Command lines come out as a shell reads them, whatever the values; sources multiply as a product does."""

import itertools
import shlex
import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pq.model.sources import count, values
from p2pq.model.template import argv, combine, render, split_columns, split_sources

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
hostile = st.text("ab1 {}#%=./-'\"\\$`*?[]~!&|;<>()\n\t", max_size=12)
some_values = st.lists(texts | hostile, min_size=1, max_size=4)
safe = st.text("abzABZ019_-./,:+=@%^", min_size=1, max_size=6)
quoted = hostile.map(shlex.quote)
plain_lines = st.tuples(st.sampled_from(["./a", "make", "g++", "a.b-c@1"]), st.lists(safe | quoted, max_size=5))


@given(texts | hostile | st.lists(safe | quoted | hostile, max_size=5).map(" ".join))
def test_a_line_is_run_as_the_words_that_a_shell_would_make_or_by_a_shell(line):
    run = argv(line)
    assert run == ("/bin/sh", "-c", line) or run == tuple(shlex.split(line))


@given(plain_lines)
def test_a_plain_line_never_needs_a_shell(words):
    line = " ".join([words[0], *words[1]])
    assert list(argv(line)) == shlex.split(line)


@settings(deadline=None)
@given(st.lists(plain_lines, min_size=1, max_size=20))
def test_a_shell_makes_the_same_words_of_plain_lines(lines):
    """Of all of them in one shell, in which the first word of each is a command that shows its arguments."""
    script = "show() { printf '%s\\0' $# \"$@\"; }\n"
    shown = []
    for program, rest in lines:
        words = argv(" ".join([program, *rest]))
        script += " ".join(["show", *rest]) + "\n"
        shown += [str(len(words) - 1), *words[1:]]
    done = subprocess.run(
        ["/bin/sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60
    )
    assert done.stdout.decode() == "".join(f"{word}\0" for word in shown)
    assert done.stderr == b""


@given(some_values)
def test_every_value_arrives_as_it_was_given(given_values):
    numbered = [f"{{{column + 1}}}" for column in range(len(given_values))]
    for words in (["./a"], ["./a", "{}"], ["./a", *numbered]):
        assert argv(render(words, given_values, 1)) == ("./a", *given_values)


@given(some_values, st.sampled_from(["{.}", "{/}", "{//}", "{/.}"]))
def test_a_part_of_a_value_is_one_word_too(given_values, replacement):
    words = argv(render(["./a", replacement], given_values, 1))
    assert len(words) == 1 + len(given_values)
    if replacement != "{//}":
        assert all(part in value for part, value in zip(words[1:], given_values, strict=True))


@given(hostile.filter(lambda text: "{" not in text), some_values)
def test_a_template_without_replacement_strings_is_kept(text, given_values):
    assert render([text], given_values, 1) == " ".join([text, *map(shlex.quote, given_values)])


@given(st.lists(st.sampled_from(["a", "{}", ":::", "", "::"]), max_size=12))
def test_sources_put_together_are_what_was_typed(words):
    command, sources = split_sources(words)
    assert [*command, *(word for source in sources for word in [":::", *source.words])] == words


@given(st.lists(st.lists(st.lists(texts, min_size=1, max_size=3), min_size=1, max_size=3), max_size=3))
def test_sources_multiply_and_linked_ones_are_zipped(groups):
    sources = combine([(column, at > 0) for group in groups for at, column in enumerate(group)])
    assert sources is not None
    model = [
        tuple(itertools.chain(*rows)) for rows in itertools.product(*(zip(*group, strict=False) for group in groups))
    ]
    assert [values(sources, index) for index in range(count(sources))] == model


@given(st.lists(st.lists(st.text("ab ", max_size=3), min_size=1, max_size=4), min_size=1, max_size=5))
def test_columns_are_split_trimmed_and_padded(rows):
    source = split_columns([",".join(row) for row in rows], ",")
    widest = max(map(len, rows))
    padded = [tuple(column.strip() for column in row) + ("",) * (widest - len(row)) for row in rows]
    assert [source.row(position) for position in range(source.rows())] == padded
