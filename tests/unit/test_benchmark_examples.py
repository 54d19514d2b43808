"""Examples are run by both programs and compared; nothing counts as equal that is not."""

import pytest

from benchmarks import __main__ as program
from benchmarks import nodes
from benchmarks.examples import program as examples
from benchmarks.examples.cases import CASES, ELSEWHERE, Case

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _parallel(monkeypatch):
    """Have a GNU parallel on every machine: one that knows what p2pq knows."""
    monkeypatch.setitem(examples.STANDINS, "parallel", 'exec p2pq map "$@"')
    monkeypatch.setattr(examples.shutil, "which", str)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with nodes.Node(tmp_path_factory.mktemp("examples") / "home", "--slots", "2") as running:
        yield running


@pytest.mark.parametrize(
    ("script", "own", "word", "why"),
    [
        ("PARALLEL echo {} ::: 1 2", "", "equal", ""),
        ("PARALLEL echo {} '>' {}.txt ::: 1 2", "", "equal", ""),
        ("PARALLEL echo {} ::: 1 2", "p2pq map echo {} ::: 1 3", "differs", "prints '3' instead of '2'"),
        ("PARALLEL echo {} ::: 1 2", "p2pq map echo {} ::: 1", "differs", "prints 1 lines instead of 2"),
        ("PARALLEL -k echo {} ::: 1 2", "p2pq map -k echo {} ::: 2 1", "differs", "prints 2 lines instead of 2"),
        ("PARALLEL touch {} ::: 1", "p2pq map touch {}.x ::: 1", "differs", "other files: 1, 1.x"),
        ("PARALLEL exit {} ::: 0", "p2pq map --retries 0 exit {} ::: 3", "differs", "exit code 1 instead of 0."),
        ("PARALLEL echo ::: 1 | cat", "p2pq map --dance echo ::: 1 | cat", "not yet", "--dance"),
        ("PARALLEL echo ::: 1", "p2pq map '{= x =}' ::: 1", "not yet", "{= perl =} is not supported"),
    ],
)
def test_examples_are_equal_refused_or_different(node, tmp_path, script, own, word, why):
    found = examples.compare(Case("A section", script, own=own), node, tmp_path / "example")
    assert (found.word, found.why) == (word, why)


def test_the_table_is_made_anew_below_what_people_wrote():
    case = Case("A | section", "PARALLEL echo a|cat")
    verdicts = [
        examples.Verdict(case=case, own="p2pq map echo a|cat", word="equal"),
        examples.Verdict(case=case, own="p2pq map\nx `y`", word="not yet", why="--x"),
    ]
    text = examples.document(f"# Title\n\n{examples._CUT}old", verdicts)
    assert text.startswith(f"# Title\n\n{examples._CUT}\n1 of 2 examples give the same.")
    assert "`--x` (1)" in text
    assert r"| A \| section | `p2pq map echo a\|cat` | equal |" in text
    assert "| `p2pq map`<br>`` x `y` `` | not yet: --x |" in text
    assert "old" not in text


def test_the_document_says_what_is_found_for_a_section(capsys):
    section = "Removing strings from the argument"
    before = examples.DOCUMENT.read_text()
    assert program.main(["examples", "--section", section]) == 0
    assert examples.DOCUMENT.read_text() == before
    said = [line for line in capsys.readouterr().err.splitlines() if section in line]
    rows = [line for line in before.splitlines() if line.startswith(f"| {section} |")]
    assert [row.rpartition("| ")[2].split(":")[0].strip(" |") for row in rows] == [line[:8].strip() for line in said]


def test_without_gnu_parallel_nothing_is_compared(monkeypatch, capsys):
    monkeypatch.setattr(examples.shutil, "which", lambda _: None)
    assert program.main(["examples"]) == 2
    assert "apt install parallel" in capsys.readouterr().err


def test_every_section_is_compared_or_said_to_be_left_out():
    left = [name for names in ELSEWHERE.values() for name in names]
    assert not {case.section for case in CASES} & set(left)
    assert len(left) == len(set(left))
