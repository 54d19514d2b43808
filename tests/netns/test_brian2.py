"""The example that p2pq was made for: a Brian2 network, swept over three hosts."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from p2pq.wire.control import TaskView
from tests.netns import brian
from tests.netns.lan import Lan, contents, into_one_mesh

WORKERS = ("bert", "carl", "dora")


@pytest.fixture(scope="module")
def brian_python() -> str:
    """Return an interpreter with what the example needs."""
    return brian.python()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_sweep_over_three_hosts_equals_a_local_run(lan: Lan, tmp_path: Path, brian_python: str) -> None:
    hosts = [lan.add(name) for name in ("anna", *WORKERS)]
    anna, *others = hosts
    for host in others:
        host.configure(f'[runner]\npython = "{brian_python}"\n')
    into_one_mesh(hosts)
    folder = tmp_path / "brian2-sweep"
    shutil.copytree(brian.EXAMPLE, folder, ignore=shutil.ignore_patterns("results*", "__pycache__"))
    # All hosts have the same processors here: what the owner ran itself would leave none to guests, who run at idle priority.
    anna.ok("submit", "--need", "has=brian2", "--env", "none", "--sweep", "rate=8:30:2", str(folder), timeout=240)
    [job] = anna.json("jobs")
    tasks = anna.tasks(job["job"])
    nodes = [task.node for task in tasks]
    print(f"brian2 sweep of 12: { ({name: nodes.count(name) for name in WORKERS}) }")
    assert len(tasks) == 12
    assert set(nodes) == set(WORKERS)

    near = tmp_path / "near"

    def run_here(task: TaskView) -> None:
        environment = {**os.environ, "P2PQ_RESULTS": str(near / f"{task.task}"), "HOME": str(tmp_path)}
        argv = [brian_python, str(brian.EXAMPLE / "main.py"), "--rate", task.params["rate"]]
        subprocess.run(argv, env=environment, check=True, timeout=120, capture_output=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run_here, tasks))
    for results in (folder / "results", near):
        subprocess.run([sys.executable, str(brian.EXAMPLE / "plot.py"), str(results)], check=True, timeout=30)
    far = contents(folder / "results")
    assert far == contents(near)
    assert sorted(far) == sorted(
        [*(f"{n}/{name}" for n in range(12) for name in ("rate.json", "spikes.npz")), "rate.svg"]
    )
    assert far["rate.svg"].startswith(b"<svg")
