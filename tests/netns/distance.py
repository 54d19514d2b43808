"""How well a bridge far away is used: what share of the time the slots behind it are busy.

    python -m tests.netns.distance [--rtt 200] [--slots 1] [--carries]

An owner, a bridge that batches, and a worker in a network of its own behind it (needs root and bubblewrap). All that
goes between the owner and the bridge is held up by a program in between, half the round trip each way. Jobs of 1 s
and of 50 ms tasks run on the worker only. Each task says when it began and ended, by the worker's clock: the share is
the sum of these times, of that of all slots from the first task's begin until the last one's end. What a node needs
between two tasks counts as idle, so the same jobs are measured at 1 ms, too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import lab
from tests.netns.lan import Host, Lan, linked, ready

GOALS = {1.0: 0.95, 0.05: 0.8}
"""Length of a task in seconds -> the share that the slots must be busy."""
OF_A_SLOT = {1.0: 40, 0.05: 400}
NEAR_MS = 1.0
SLEEPS = '#!/bin/sh\nfrom=$(date +%s.%N)\nsleep "$1"\necho "$from $(date +%s.%N)" > "$P2PQ_RESULTS/times"\n'
DELAY = """
import asyncio, sys
half_s, listen, target = float(sys.argv[1]), sys.argv[2], sys.argv[3]
async def pump(reader, writer):
    loop = asyncio.get_running_loop()
    late = asyncio.Queue(1000)
    async def read():
        while data := await reader.read(65536):
            await late.put((loop.time() + half_s, data))
        await late.put((loop.time() + half_s, b""))
    task = asyncio.create_task(read())
    while True:
        at, data = await late.get()
        await asyncio.sleep(at - loop.time())
        if not data:
            break
        writer.write(data)
        await writer.drain()
    writer.close()
    await task
async def serve(reader, writer):
    there, back = await asyncio.open_connection(target, 9476)
    await asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True)
async def main():
    async with await asyncio.start_server(serve, listen, 9476) as server:
        print("ready", flush=True)
        await server.serve_forever()
asyncio.run(main())
"""


@dataclass
class Distant:
    """The hosts, and the program that holds up what goes between them."""

    owner: Host
    worker: Host
    delay: "subprocess.Popen[str]"


def build(lan: Lan, rtt_s: float, slots: int, *, batch: bool) -> Distant:
    """Make one mesh of an owner, a bridge at this distance, and a worker behind it."""
    lan.open()
    between = lan.add("between", (0, 2))
    gate, worker, owner = lan.add("gate", (2, 1)), lan.add("worker", (1,)), lan.add("owner", (0,))
    gate.configure(f"[node]\naccept = false\n[bridge]\nenabled = true\nbatch = {str(batch).lower()}\n")
    worker.configure(f'[node]\nslots = {slots}\nlabels = {{ far = "yes" }}\n')
    argv = ["ip", "netns", "exec", between.space, sys.executable, "-c", DELAY]
    delay = subprocess.Popen([*argv, str(rtt_s / 2), between.ip, gate.ip], stdout=subprocess.PIPE, text=True)
    assert delay.stdout is not None
    assert delay.stdout.readline() == "ready\n"
    hosts = [gate, worker, owner]
    for host in hosts:
        host.start()
    code = gate.ok("invite", "--uses", "2").split()[0]
    worker.ok("join", code, "--yes")
    owner.ok("join", code, "--at", f"{between.ip}:9476", "--yes")
    linked(hosts, 60)
    lab.until(lambda: ready(owner, 1) or ready(owner, 2), "the worker takes work")
    return Distant(owner, worker, delay)


def share(distant: Distant, folder: Path, length_s: float, slots: int) -> float:
    """Run a job of such tasks; return the share of the time in which tasks ran in the slots."""
    folder.mkdir()
    (folder / "main.sh").write_text(SLEEPS)
    owner, tasks = distant.owner, OF_A_SLOT[length_s] * slots
    owner.ok("submit", "--need", "far=yes", "--array", f"0-{tasks - 1}", str(folder), str(length_s), timeout=600)
    [job] = [view["job"] for view in owner.json("jobs") if view["name"] == folder.name]
    assert {(task.state, task.via) for task in owner.tasks(job)} == {("done", ("gate",))}
    times = [tuple(map(float, path.read_text().split())) for path in folder.glob("results/*/times")]
    assert len(times) == tasks
    begins, ends = zip(*times, strict=True)
    return (sum(ends) - sum(begins)) / (slots * (max(ends) - min(begins)))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.netns.distance", description=__doc__.splitlines()[0])
    parser.add_argument("--rtt", type=float, default=200.0, help="round trip between owner and bridge in ms (200)")
    parser.add_argument("--slots", type=int, default=1, help="of the worker (1: three nodes share one machine)")
    parser.add_argument("--carries", action="store_true", help="the bridge carries links instead")
    given = parser.parse_args(argv)
    os.environ["P2PQ_ALLOW_ROOT"] = "1"
    missed = False
    with tempfile.TemporaryDirectory(prefix="p2pq-distance-") as folder:
        for number, rtt_ms in enumerate((NEAR_MS, given.rtt)):
            base = Path(folder) / str(number)
            base.mkdir()
            lan = Lan(base)
            try:
                distant = build(lan, rtt_ms / 1000, given.slots, batch=not given.carries)
                for length_s, goal in GOALS.items():
                    busy = share(distant, base / f"of-{length_s}", length_s, given.slots)
                    missed = missed or (rtt_ms == given.rtt and busy < goal)
                    print(
                        f"tasks of {length_s:g} s, {rtt_ms:g} ms away: slots busy {busy:.1%} of the time (goal {goal:.0%})",
                        flush=True,
                    )
                distant.delay.kill()
            finally:
                lan.close()
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
