"""Where the program begins."""

import subprocess
import sys

import pytest

from p2pq.cli import entry
from p2pq.wire.commandcontrol import Ends, SubmitCommands, TaskEnded
from p2pq.wire.control import LogChunk
from tests.unit.client.nodekit import Node, job_view

SLOW = {
    *("argparse", "asyncio", "click", "concurrent", "ctypes", "dataclasses", "datetime", "hashlib", "inspect", "json"),
    *("logging", "lz4", "msgspec", "nacl", "pathlib", "platform", "platformdirs", "random", "re", "shlex", "shutil"),
    *("subprocess", "tempfile", "threading", "typing", "uuid"),
}
"""Each of these takes as long to import as a good part of what `p2pq run` does."""


def test_run_loads_nothing_slow(tmp_path, monkeypatch):
    """The bound is what is loaded, not how long it takes: this machine may be slow."""
    for name in ("P2PQ_TASK", "PYTHONWARNINGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("P2PQ_ALLOW_ROOT", "1")
    code = (
        "import sys; before = set(sys.modules)\n"
        "from p2pq.cli.entry import main\n"
        "try: main()\n"
        "except SystemExit as ended: print(ended.code, *sorted(set(sys.modules) - before))\n"
    )
    with Node(tmp_path / "home") as node:
        monkeypatch.setenv("P2PQ_HOME", str(node.home))
        node.answers[SubmitCommands] = [job_view()]
        node.answers[Ends] = [LogChunk(task=0, data=b"out "), TaskEnded(task=0, state="failed", exit=7, reason="exit")]
        argv = [sys.executable, "-c", code, "run", "--", "x"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    out, exit_code, *loaded = done.stdout.split()
    assert (out, exit_code, done.stderr) == ("out", "7", "")
    assert "p2pq.cli.quick" in loaded
    assert not {name.partition(".")[0] for name in loaded} & SLOW
    ours = {name for name in loaded if name.startswith("p2pq.")}
    assert ours <= {
        *("p2pq.cli", "p2pq.cli.entry", "p2pq.cli.interrupts", "p2pq.cli.quick", "p2pq.errors", "p2pq.homes"),
        *("p2pq.client", "p2pq.client.inherited", "p2pq.client.quick"),
        *("p2pq.wire", "p2pq.wire.local", "p2pq.wire.plainpack"),
    }


@pytest.mark.parametrize("typed", [["jobs"], ["run", "x"], ["--home", "h", "run", "x"], []])
def test_all_else_is_left_to_the_whole(monkeypatch, typed):
    asked, whole = [], []
    monkeypatch.setattr(sys, "argv", ["p2pq", *typed])
    monkeypatch.setattr("p2pq.cli.quick.run", asked.append)
    monkeypatch.setattr("p2pq.cli.main.main", lambda: whole.append(True))
    entry.main()
    assert asked == [["x"]] * (typed == ["run", "x"])
    assert whole == [True]
