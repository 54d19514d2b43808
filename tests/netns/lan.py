"""A local network inside this machine: hosts as network namespaces, on a bridge in a namespace of its own.

Nothing leaves the namespaces. Names carry the process id of the test run, so that what a killed run left is removed by the next.
"""

import contextlib
import itertools
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from p2pq.client.connection import Connection
from p2pq.daemon.home import Home
from p2pq.errors import P2PQError
from p2pq.homes import socket_path
from p2pq.wire import control
from tests.e2e import lab

_NAME = re.compile(r"pq-([0-9]+)-[0-9]+-[a-z0-9]+")
_numbers = itertools.count(1)


def ip(*words: str, check: bool = True) -> str:
    """Run ``ip``."""
    return subprocess.run(["ip", *words], check=check, capture_output=True, text=True).stdout


def sweep_up() -> None:
    """Remove namespaces of test runs that are no more."""
    for line in ip("netns", "list").splitlines():
        found = _NAME.fullmatch(line.split()[0])
        if found is not None and not Path("/proc", found[1]).exists():
            ip("netns", "del", found[0], check=False)


class Host(lab.Host):
    """A host of the network: its own namespace, address and home."""

    def __init__(self, name: str, home: Path, space: str, address: str, port: str) -> None:
        """Name it; the namespace exists already."""
        super().__init__(home, netns=space)
        self.name, self.space, self.ip, self.plug = name, space, address, port
        self.ready_at = 0.0
        """When the node said ready, by the monotonic clock."""

    def start(self, *options: str, mdns: bool = True) -> str:
        """Run the node; nothing is configured but its name."""
        line = super().start("--name", self.name, *options, mdns=mdns)
        self.ready_at = time.monotonic()
        return line

    def ask(self, request: control.ControlRequest, kind: type) -> list[Any]:
        """Ask the node over its socket, which is quicker than a command; nothing if it is not there, or cannot say."""
        try:
            with Connection(socket_path(self.home), Home(self.home).api_token.read_bytes()) as node:
                return node.all(request, kind)
        except (P2PQError, FileNotFoundError):
            return []

    def up(self) -> set[str]:
        """Return the names of the peers that are linked."""
        return {peer.name for peer in self.ask(control.PeersList(), control.PeerView) if peer.state == "up"}

    def tasks(self, job: str) -> list[control.TaskView]:
        """Return the tasks of a job."""
        return self.ask(control.Tasks(job=job), control.TaskView)

    def detach(self, *args: str) -> str:
        """Submit and return the job's id; each task has a process with an environment of its own, by which it can be found."""
        return self.ok("submit", "--detach", "--cold", *args).split()[0]

    def configure(self, text: str) -> None:
        """Write the host's config.toml."""
        (self.home / "config.toml").write_text(text)
        (self.home / "config.toml").chmod(0o600)


class Lan:
    """Hosts on a switch; or on several, between which there is no way but through a host that is plugged into both."""

    def __init__(self, base: Path) -> None:
        """Name it; ``open`` builds it."""
        self._base = base
        self._mark = f"pq-{os.getpid()}-{next(_numbers)}"
        self.switch = f"{self._mark}-sw"
        self.hosts: list[Host] = []
        self._nets: set[int] = set()

    def open(self) -> None:
        """Make the place where the switches are."""
        sweep_up()
        ip("netns", "add", self.switch)

    def add(self, name: str, nets: tuple[int, ...] = (0,)) -> Host:
        """Plug in one more host, into the switches of these networks."""
        number = len(self.hosts) + 1
        space = f"{self._mark}-{name}"
        home = self._base / name
        home.mkdir(mode=0o700)
        host = Host(name, home, space, f"10.77.{nets[0]}.{number}", _plug(number, nets[0]))
        self.hosts.append(host)
        ip("netns", "add", space)
        ip("-n", space, "link", "set", "lo", "up")
        for net in nets:
            self._plug_in(space, number, net)
        return host

    def second(self, first: Host, name: str) -> Host:
        """Add another node on a host that is there: with a home of its own, on the same network cards."""
        home = self._base / name
        home.mkdir(mode=0o700)
        host = Host(name, home, first.space, first.ip, first.plug)
        self.hosts.append(host)
        return host

    def _plug_in(self, space: str, number: int, net: int) -> None:
        switch, plug, card = f"br{net}", _plug(number, net), f"eth{net}"
        if net not in self._nets:
            self._nets.add(net)
            ip("-n", self.switch, "link", "add", switch, "type", "bridge")
            ip("-n", self.switch, "link", "set", switch, "up")
        ip("-n", self.switch, "link", "add", plug, "type", "veth", "peer", "name", card, "netns", space)
        ip("-n", self.switch, "link", "set", plug, "master", switch, "up")
        ip("-n", space, "addr", "add", f"10.77.{net}.{number}/24", "dev", card)
        ip("-n", space, "link", "set", card, "up")

    def pull(self, host: Host, net: int | None = None) -> None:
        """Pull the host's cable: the first one, or that of a network."""
        ip("-n", self.switch, "link", "set", self._cable(host, net), "down")

    def put_back(self, host: Host, net: int | None = None) -> None:
        """Plug it in again."""
        ip("-n", self.switch, "link", "set", self._cable(host, net), "up")

    def _cable(self, host: Host, net: int | None) -> str:
        return host.plug if net is None else _plug(self.hosts.index(host) + 1, net)

    def slow(self, host: Host, net: int, mbit: int) -> None:
        """Make a host's network card as slow as this, both ways."""
        limit = ["root", "tbf", "rate", f"{mbit}mbit", "burst", "256kb", "latency", "200ms"]
        for space, card in ((host.space, f"eth{net}"), (self.switch, self._cable(host, net))):
            ip("netns", "exec", space, "tc", "qdisc", "replace", "dev", card, *limit)

    def crossed(self, host: Host, net: int) -> int:
        """Return how many bytes have come into a network from a host."""
        counted = ip(
            "netns", "exec", self.switch, "cat", f"/sys/class/net/{self._cable(host, net)}/statistics/rx_bytes"
        )
        return int(counted)

    def close(self) -> None:
        """End every node, then every namespace."""
        for host in self.hosts:
            if host.process is not None:
                host.process.kill()
                host.process.communicate()
        for space in [*(host.space for host in self.hosts), self.switch]:
            ip("netns", "del", space, check=False)


def _plug(number: int, net: int) -> str:
    """Return the name of a host's end at the switch of a network."""
    return f"port{number}-{net}"


def start_all(hosts: list[Host]) -> float:
    """Start nodes at the same time; return when the last one was ready."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        list(pool.map(Host.start, hosts))
    return max(host.ready_at for host in hosts)


def linked(hosts: list[Host], seconds: float = 30.0) -> float:
    """Wait until each sees exactly the others as up; return when that was so."""
    names = {host.name for host in hosts}
    lab.until(lambda: all(host.up() == names - {host.name} for host in hosts), "all are linked to all", seconds)
    return time.monotonic()


def into_one_mesh(hosts: list[Host], *options: str) -> None:
    """Start all; the first invites, the others join by what mDNS says."""
    start_all(hosts)
    first, *others = hosts
    code = first.ok("invite", "--uses", str(len(others)), *options).split()[0]
    for host in others:
        host.ok("join", code, "--yes")
    linked(hosts)
    lab.until(lambda: all(ready(host, len(others)) for host in hosts), "all take work")


def ready(host: Host, others: int) -> bool:
    """Tell whether this host's peers have all told what they offer (their self-test is over)."""
    peers = host.ask(control.PeersList(), control.PeerView)
    return sum(bool(peer.state == "up" and peer.slots) for peer in peers) == others


@contextlib.contextmanager
def opened(base: Path) -> Iterator[Lan]:
    """Give a network without hosts, whose homes will lie below that folder; stop and remove everything at the end."""
    made = Lan(base)
    try:
        made.open()
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def capture(lan: Lan, path: Path) -> Iterator[None]:
    """Keep every frame that crosses the bridge."""
    options = ["-i", "any", "--immediate-mode", "-U", "-s", "0", "-B", "32768", "-Z", "root"]
    argv = ["ip", "netns", "exec", lan.switch, "tcpdump", *options]
    # Unbuffered: what a reader had taken along already, nobody would be told to be readable.
    with subprocess.Popen([*argv, "-w", str(path)], stderr=subprocess.PIPE, bufsize=0) as tcpdump:
        assert tcpdump.stderr is not None
        said = b""
        try:
            while b"listening on" not in said:
                readable, _, _ = select.select([tcpdump.stderr], [], [], 10)
                line = tcpdump.stderr.readline() if readable else b""
                assert line, f"tcpdump does not listen: {said!r}"
                said += line
            yield
        finally:
            tcpdump.send_signal(signal.SIGINT)
            _, said = tcpdump.communicate(timeout=20)
    assert b"\n0 packets dropped by kernel" in said, said


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("**/*")) if path.is_file()}
