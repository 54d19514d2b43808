"""mDNS with real multicast: three hosts in network namespaces on one bridge."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, os, sys, time
from p2pq.daemon import netinfo
from p2pq.daemon.discovery import Discovery

async def main(key, slot):
    begun = time.monotonic()

    def post(event):
        print(f"{time.monotonic() - begun:.2f}", *event.addresses, flush=True)

    async with asyncio.TaskGroup() as group:
        discovery = Discovery(
            group,
            post=post,
            psks=lambda: (bytes([key]) * 32,),
            wall=lambda: int(time.time() * 1000),
            addresses=netinfo.listening("0.0.0.0", 9476),
            entropy=os.urandom,
        )
        await discovery.start()
        print("started", discovery.problem, flush=True)
        if slot:
            discovery.show_slot(slot)
        await asyncio.to_thread(sys.stdin.readline)
        print("inviter", *await discovery.find_inviter("4T", 3), flush=True)
        await discovery.close()

asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""

HOSTS = ("a", "b", "c")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def lan() -> Iterator[dict[str, str]]:
    """Three namespaces on one bridge; returns namespace and address by host."""
    mark = f"{os.getpid() % 100000:x}"
    bridge = f"pqb{mark}"
    spaces = {f"pq{mark}{host}": f"10.79.{os.getpid() % 250}.{number}" for number, host in enumerate(HOSTS, 1)}
    try:
        ip("link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
        ip("link", "set", bridge, "up")
        for space, address in spaces.items():
            ip("netns", "add", space)
            ip("link", "add", f"v{space}", "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", f"v{space}", "master", bridge, "up")
            ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
        yield spaces
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


@pytest.mark.timeout(60)
def test_hosts_find_each_other_within_three_seconds(lan: dict[str, str]) -> None:
    """Two of one mesh see each other; the third, of another mesh, sees nobody, but finds the inviter by its slot."""
    root = Path(__file__).parents[2]
    keys = dict(zip(lan, ("1", "1", "2"), strict=True))
    slots = dict(zip(lan, ("4T", "", ""), strict=True))
    nodes = {
        space: subprocess.Popen(
            ["ip", "netns", "exec", space, sys.executable, "-c", PROGRAM, keys[space], slots[space]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for space in lan
    }
    try:
        first, second, _ = lan
        for node in nodes.values():
            assert node.stdout is not None
            assert node.stdout.readline() == "started \n"
        for space, other in ((first, second), (second, first)):
            out = nodes[space].stdout
            assert out is not None
            seconds, address = out.readline().split()
            assert float(seconds) < 3
            assert address == f"{lan[other]}:9476"
        said = {space: node.communicate("\n", timeout=20)[0].split() for space, node in reversed(nodes.items())}
        assert said[second] == said[list(lan)[2]] == ["inviter", f"{lan[first]}:9476"]
        assert said[first] == ["inviter"]
    finally:
        for node in nodes.values():
            node.kill()
            node.wait()
