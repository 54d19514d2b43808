"""What people read of a build that failed; tests/sandbox/test_builds.py builds."""

from pathlib import Path

import pytest

from p2pq.daemon.building import SAID_CHARS, remove_tree, shortened

NO_SOLUTION = """\
error: No solution found.
  cause: Because a was not found and you require a,
         we can conclude that your requirements are unsatisfiable.

hint: try harder
"""


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("", ""),
        ("warning: x\nerror: No such thing\n", "No such thing"),
        (NO_SOLUTION, "No solution found: Because a was not found and you require a"),
        ("error: first\nerror: second\n", "second"),
        ("\x1b[1;31merror\x1b[0m: red\x07\u202e text", "red\ufffd\ufffd text"),
        ("error: " + "x" * 1000, "x" * (SAID_CHARS - 1) + "…"),
    ],
)
def test_what_uv_said_is_one_sentence(said, shown):
    assert shortened(said) == shown


def test_a_tree_goes_whatever_it_is(tmp_path: Path):
    folder = tmp_path / "tree"
    remove_tree(folder)
    (folder / "closed").mkdir(parents=True)
    (folder / "closed" / "file").touch()
    (folder / "closed").chmod(0)
    (folder / "link").symlink_to(tmp_path)
    remove_tree(folder)
    assert list(tmp_path.iterdir()) == []
