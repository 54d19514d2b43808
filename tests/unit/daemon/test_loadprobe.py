"""A load probe of the user's own: what it says counts, and what it does not say is absent."""

import asyncio
import os
import signal

import pytest

from p2pq.daemon import loadprobe as module
from p2pq.daemon.loadprobe import EVERY_S, STALE_S, LoadProbe
from p2pq.model.ids import Mono
from p2pq.model.owner import Readings


class Probe:
    def __init__(self, command):
        self.now = 0.0
        self.probe = LoadProbe(command, lambda: Mono(self.now))

    async def ask(self):
        self.probe.look()
        await self.probe._asking
        return self.probe.put_in(Readings(load=0.125, absent=(("input", "x"), ("load", "y"))))


async def test_its_first_word_is_the_load():
    assert await Probe("echo 0.5 and more").ask() == Readings(load=0.5, absent=(("input", "x"),))


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("echo", "printed no number"),
        ("echo much", "printed no number"),
        ("echo nan", "printed no number"),
        ("echo inf", "printed no number"),
        ("echo 'open", "printed no number"),
        ("/nowhere/at/all", "cannot be run: No such file or directory"),
    ],
)
async def test_whatever_else_it_does_tells_nothing_and_why(command, why):
    found = await Probe(command).ask()
    assert found.load is None
    assert found.absent == (("input", "x"), ("load", f"[policy] load_probe {why}"))


async def test_before_it_has_answered_nothing_is_known():
    found = LoadProbe("echo 1", lambda: Mono(0.0)).put_in(Readings(load=0.5))
    assert (found.load, found.absent) == (None, (("load", "[policy] load_probe has not answered yet"),))


async def test_it_is_asked_now_and_then(tmp_path):
    counter = tmp_path / "count"
    probe = Probe(f"sh -c 'echo x >> {counter}; wc -l < {counter}'")
    assert (await probe.ask()).load == 1
    probe.now = EVERY_S - 0.1
    assert (await probe.ask()).load == 1
    probe.now = EVERY_S
    assert (await probe.ask()).load == 2


async def test_one_that_hangs_is_killed_with_all_that_it_started(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    monkeypatch.setattr(module, "GONE_S", 60)
    probe = Probe("sh -c 'sleep 613 & sleep 613'")
    found = await probe.ask()
    assert found.absent[1] == ("load", "[policy] load_probe did not end within 0.05 s")
    assert probe.probe._process.returncode == -9
    probe.probe.close()


async def test_what_it_leaves_behind_with_its_output_open_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 60)
    probe = Probe("sh -c 'sleep 613 & echo 0.5'")
    assert (await probe.ask()).load == 0.5
    silent = Probe("sh -c 'sleep 613 &'")
    assert (await silent.ask()).absent[1] == ("load", "[policy] load_probe printed no number")
    for each in (probe, silent):
        os.killpg(each.probe._process.pid, signal.SIGKILL)


async def test_two_never_run_at_once():
    probe = Probe("sleep 613")
    probe.probe.look()
    first = probe.probe._asking
    probe.now = EVERY_S
    probe.probe.look()
    assert probe.probe._asking is first
    probe.probe.close()
    await asyncio.wait([first])


async def test_one_that_cannot_be_killed_is_waited_for_no_longer_and_not_run_again(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    monkeypatch.setattr(module, "GONE_S", 0.01)
    killed = []
    monkeypatch.setattr(module.os, "killpg", lambda pid, number: killed.append((pid, number)))
    begun = []

    async def begin(*argv, **_):
        begun.append(argv)
        return Undead()

    monkeypatch.setattr(module.asyncio, "create_subprocess_exec", begin)
    probe = Probe("read /from/a/dead/server")
    found = await probe.ask()
    assert found.absent[1] == ("load", "[policy] load_probe did not end within 0.01 s")
    assert killed == [(7, signal.SIGKILL)]
    probe.now = EVERY_S
    await probe.ask()
    assert len(begun) == 1
    probe.probe._process.returncode = -9
    await probe.ask()
    assert len(begun) == 2


class Undead:
    """A process in state D."""

    pid = 7
    returncode = None

    async def wait(self):
        await asyncio.Event().wait()


async def test_what_it_said_long_ago_counts_no_more():
    probe = Probe("echo 0.5")
    await probe.ask()
    probe.now = STALE_S
    assert probe.probe.put_in(Readings()).load == 0.5
    probe.now = STALE_S + 0.1
    found = probe.probe.put_in(Readings())
    assert (found.load, found.absent) == (None, (("load", "[policy] load_probe has not answered for 30 s"),))
