"""The small version of ``python -m tests.netns.chaos``: nodes are killed and cables pulled while a job runs."""

from itertools import islice, pairwise
from pathlib import Path

from tests.netns import chaos

TASKS = 300
PACE = 2.5
"""Faults are this many times as frequent, so that there are some in a few seconds."""


def test_every_task_ends_once_whoever_is_killed(tmp_path: Path) -> None:
    figures = chaos.once(tmp_path, TASKS, seed=193, pace=PACE)
    print(figures)
    assert figures.broken == []
    assert figures.kills >= 2  # the second is the owner's node
    assert figures.attempts >= TASKS


def test_the_seed_decides_every_fault() -> None:
    first, again, other = (list(islice(chaos.plan(seed, 5), 200)) for seed in (3, 3, 4))
    assert first == again != other
    assert all(before.at_s <= after.at_s for before, after in pairwise(first))
    kills = [fault for fault in first if fault.kind == "kill"]
    assert [fault.at_s for fault in kills] == [chaos.KILL_EVERY_S * (n + 1) for n in range(len(kills))]
    assert {fault.host for fault in kills} == set(range(5))
    assert all(chaos.DOWN_S[0] <= fault.for_s <= chaos.DOWN_S[1] for fault in kills)
    assert all(chaos.CUT_S[0] <= fault.for_s <= chaos.CUT_S[1] for fault in first if fault.kind == "cut")
