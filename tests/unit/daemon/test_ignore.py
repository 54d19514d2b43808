"""What stays at home."""

import pytest

from p2pq.daemon.ignore import Ignore, always_excluded, enter
from p2pq.errors import UsageError


@pytest.mark.parametrize(
    ("path", "folder", "excluded"),
    [
        ("results", True, True),
        ("results.~1~", True, True),
        ("results.~12~", True, True),
        ("results.~1~.~1~", True, True),
        ("results", False, True),
        ("a/results", False, False),
        ("results.~1~", False, False),
        ("results.~x~", True, False),
        ("results2", True, False),
        ("a/results", True, False),
        (".git", True, True),
        ("sub/.git", True, True),
        (".git", False, True),
        (".gitignore", False, False),
        (".p2pq", True, True),
        (".p2pqignore", False, True),
        ("main.py", False, False),
    ],
)
def test_always_excluded(path, folder, excluded):
    assert always_excluded(path, folder=folder) is excluded
    assert Ignore().excluded((), path, folder=folder) is excluded


@pytest.mark.parametrize(
    ("pattern", "path", "folder", "excluded"),
    [
        ("*.o", "a.o", False, True),
        ("*.o", "d/a.o", False, True),
        ("/a.o", "d/a.o", False, False),
        ("build/", "build", True, True),
        ("build/", "build", False, False),
        ("build/", "d/build", True, True),
        ("d/*.txt", "d/x.txt", False, True),
        ("d/*.txt", "e/d/x.txt", False, False),
        ("**/x", "a/b/x", False, True),
        ("# a comment", "# a comment", False, False),
        ("\\#x", "#x", False, True),
        ("", "x", False, False),
    ],
)
def test_patterns_mean_what_git_means(pattern, path, folder, excluded):
    assert Ignore([pattern]).excluded((), path, folder=folder) is excluded
    rules = enter((), "", [(".gitignore", pattern + "\n")])
    assert Ignore().excluded(rules, path, folder=folder) is excluded


def test_later_patterns_win():
    rules = enter((), "", [(".gitignore", "*.o\n!keep.o\n")])
    assert Ignore().excluded(rules, "a.o", folder=False)
    assert not Ignore().excluded(rules, "keep.o", folder=False)


def test_p2pqignore_overrides_gitignore():
    rules = enter((), "", [(".gitignore", "data\n"), (".p2pqignore", "!data\n")])
    assert not Ignore().excluded(rules, "data", folder=True)


def test_inner_files_override_outer_ones_and_count_from_their_folder():
    outer = enter((), "", [(".gitignore", "*.log\n")])
    inner = enter(outer, "d", [(".gitignore", "!x.log\n/y\n")])
    assert Ignore().excluded(outer, "x.log", folder=False)
    assert not Ignore().excluded(inner, "d/x.log", folder=False)
    assert Ignore().excluded(inner, "d/z.log", folder=False)
    assert Ignore().excluded(inner, "d/y", folder=False)
    assert not Ignore().excluded(outer, "y", folder=False)


def test_exclude_option_has_the_last_word():
    rules = enter((), "", [(".p2pqignore", "!a.o\n*.bin\n")])
    ignore = Ignore(["*.o", "!b.bin"])
    assert ignore.excluded(rules, "a.o", folder=False)
    assert not ignore.excluded(rules, "b.bin", folder=False)
    assert ignore.excluded(rules, "c.bin", folder=False)


def test_bad_pattern_names_its_origin():
    with pytest.raises(UsageError, match="--exclude"):
        Ignore(["!"])
    with pytest.raises(UsageError, match=r"d/\.gitignore"):
        enter((), "d", [(".gitignore", "!\n")])
