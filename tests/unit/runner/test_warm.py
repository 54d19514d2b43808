"""What imports ahead, piece by piece; as a whole it is shown by tests/sandbox/test_warm.py."""

import logging
import multiprocessing.process
import os
import random
import sys
import types
from pathlib import Path

import numpy.random
import pytest

from p2pq.runner import warm


def test_generators_that_are_seeded_by_chance_are_noted() -> None:
    noted: list[object] = []
    with warm.Seeds(noted):
        chance, seeded, again = random.Random(), random.Random(3), random.Random()
        again.seed(5)
        later = random.Random(4)
        later.seed()
    assert [each is other for each, other in zip(noted, (chance, later), strict=True)] == [True, True]
    assert seeded.random() == random.Random(3).random()
    random.Random()
    assert len(noted) == 2


def test_where_nothing_is_to_be_noted_nothing_is_done() -> None:
    seed = random.Random.seed
    with warm.Seeds(None):
        assert random.Random.seed is seed


def test_numpys_generators_that_are_seeded_by_chance_are_noted() -> None:
    mine, theirs = numpy.random.default_rng(), numpy.random.default_rng(7)
    old, seeded = numpy.random.RandomState(), numpy.random.RandomState(7)
    found = warm.numpy_noted(numpy.random)
    noted = [any(each is bits for each in found) for bits in (mine.bit_generator, old._bit_generator)]
    assert noted == [True, True]
    assert not any(each in (theirs.bit_generator, seeded._bit_generator) for each in found)


def test_environments_are_compared() -> None:
    assert warm.difference({"A": "1", "B": "2", "C": "3"}, {"A": "1", "B": "4", "D": "5"}) == {
        "B": "4",
        "D": "5",
        "C": None,
    }


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> warm.Ahead:
    """One that finds modules in a folder, in a process whose threads and files stay as they are."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return warm.Ahead({"beside"}, ["left_out"])


@pytest.mark.parametrize(
    ("text", "unfit"),
    [
        ("import colorsys", False),
        ("import beside", True),
        ("import jax", True),
        ("1 / 0", True),
        ("import sys\nsys.exit()", True),
        ("import os\nFDS = os.pipe()", True),
        ("import os\nFD = os.open('/dev/null', 0)", False),
        ("import os\nopen(os.environ['TMPDIR'] + '/x', 'w').close()", True),
        ("import os\nos.chdir('/')", True),
    ],
)
def test_a_module_must_leave_the_process_as_it_was(
    ahead: warm.Ahead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, unfit: bool
) -> None:
    name = f"ahead_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    for other in ("beside", "jax"):
        (tmp_path / f"{other}.py").touch()
        monkeypatch.delitem(sys.modules, other, raising=False)
    monkeypatch.chdir(tmp_path)
    ahead._state = ahead._look()
    if unfit:
        with pytest.raises(warm.UnfitError, match=f"^{name}$"):
            ahead.take(name, ())
    else:
        ahead.take(name, ())
        assert name in sys.modules
    for fd in getattr(sys.modules.get(name), "FDS", ()):
        os.close(fd)


def test_what_proved_unfit_or_is_known_to_be_is_not_imported(ahead: warm.Ahead) -> None:
    for name in ("left_out", "left_out.inner", "tensorflow"):
        ahead.take(name, ())
        assert name not in sys.modules


def test_logging_counts_from_now_on(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = type(logging._startTime)
    monkeypatch.setattr(logging, "_startTime", kind(0))
    warm.logging_anew(logging)
    assert type(logging._startTime) is kind
    assert logging.LogRecord("n", 10, "p", 1, "m", (), None).relativeCreated < 60_000


def test_each_process_has_a_secret_of_its_own() -> None:
    before = bytes(multiprocessing.process.current_process().authkey)
    warm.multiprocessing_anew(multiprocessing.process)
    assert bytes(multiprocessing.process.current_process().authkey) != before


def test_the_log_of_brian2_is_begun_in_each_process(tmp_path: Path) -> None:
    """By a stand-in that has what its logger has: files, handlers, and a way to begin."""
    begun = []
    (tmp_path / "log").touch()
    console, file = logging.NullHandler(), logging.FileHandler(tmp_path / "log")
    logger = types.SimpleNamespace(
        file_handler=file,
        console_handler=console,
        tmp_log=str(tmp_path / "log"),
        tmp_script=None,
        initialize=lambda: begun.append(1),
    )
    for handler in (console, file):
        logging.getLogger("brian2").addHandler(handler)
    module = types.SimpleNamespace(BrianLogger=logger)
    warm.brian2_rest(module)
    assert (logger.file_handler, logger.console_handler, logger.tmp_log) == (None, None, None)
    assert not (tmp_path / "log").exists()
    assert logging.getLogger("brian2").handlers == []
    assert begun == []
    warm.brian2_anew(module)
    assert begun == [1]


def test_a_stand_in_has_all_that_its_module_has() -> None:
    module = types.ModuleType("some")
    module.x = 1
    kept = warm.Kept(module)
    module.y = 2
    assert (kept.x, kept.y, kept.__name__) == (1, 2, "some")
    assert not isinstance(kept, types.ModuleType)
