"""What goes wrong: crashes, cuts, broken and slow links, for a while. Then everything is healed and must converge."""

from collections.abc import Callable, Sequence
from random import Random

import msgspec

from p2pq.wire.trust import SKEW_MS
from simulations.disk import COMMIT_S
from simulations.host import Host
from simulations.liar import Liar
from simulations.network import Network, Partition
from simulations.plans import Misfortune
from simulations.world import World

TOLERATED_MS = SKEW_MS // 2
"""Two clocks of which neither is further off than this differ by no more than is tolerated."""


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How often things go wrong. Pauses are means, in seconds, over the whole mesh; 0 means never."""

    crash_every_s: float = 0.0
    down_s: float = 5.0
    """A host that crashed is down for so long on average."""
    power: float = 0.3
    """How likely a crash is a loss of power."""
    wipe: float = 0.0
    """How likely a host that crashed comes back without its disk."""
    masters_too: bool = True
    leave_every_s: float = 0.0
    pause_every_s: float = 0.0
    """A machine sleeps, or its node is stopped."""
    pause_s: float = 5.0
    """For so long on average; the longest is ten times that."""
    asleep: float = 0.5
    """How likely the whole machine sleeps, with its monotonic clock and its tasks."""
    slow_disk_every_s: float = 0.0
    """For half a minute or so, commits of a host take 0.1 to 20 s, or up to two minutes."""
    step_every_s: float = 0.0
    """A wall clock is set, within what is tolerated."""
    cut_every_s: float = 0.0
    cut_s: float = 20.0
    drop_every_s: float = 0.0
    """A link breaks, with what is on its way."""
    clog_every_s: float = 0.0
    """A link becomes 200 times slower for a while, or all links of a host do."""
    flap_every_s: float = 0.0
    """A host is cut off and on again every second or so, for half a minute."""
    loss: float = 0.0
    """Of single messages; the link breaks a little later."""
    duplicates: float = 0.0
    """Of single messages; the second comes up to seconds later."""
    delay_s: tuple[float, float] = (0.0002, 0.002)
    liars: float = 0.0
    """The part of the hosts without jobs of their own that is hostile."""
    fault: float = 0.0
    collect: float = 0.0
    deliver: float = 0.0
    packs: float = 0.0

    @property
    def any(self) -> bool:
        """Whether anything goes wrong at all."""
        return self != Faults(delay_s=self.delay_s)


class Nemesis:
    """Applies faults until it is told to heal."""

    def __init__(
        self, world: World, network: Network, misfortune: Misfortune, hosts: Sequence[Host], faults: Faults
    ) -> None:
        """Hold the knobs of everything."""
        self._world = world
        self._network = network
        self._misfortune = misfortune
        self._hosts = hosts
        self.faults = faults
        self._rng: Random = world.rng("nemesis")
        self._over = False
        self.crashes = 0
        self.power_losses = 0
        self.wipes = 0
        self.pauses = 0
        self.cuts = 0
        self.flaps = 0

    def begin(self) -> None:
        """Let things go wrong from now on."""
        faults = self.faults
        network = self._network
        network.delay_s = faults.delay_s
        network.loss = faults.loss
        network.duplicates = faults.duplicates
        self._misfortune.fault = faults.fault
        self._misfortune.collect = faults.collect
        self._misfortune.deliver = faults.deliver
        self._misfortune.packs = faults.packs
        for mean_s, strike in (
            (faults.crash_every_s, self._crash),
            (faults.leave_every_s, self._leave),
            (faults.pause_every_s, self._pause),
            (faults.slow_disk_every_s, self._slow_disk),
            (faults.step_every_s, self._step),
            (faults.cut_every_s, self._cut),
            (faults.drop_every_s, self._drop),
            (faults.clog_every_s, self._clog),
            (faults.flap_every_s, self._flap),
        ):
            if mean_s:
                self._strike(mean_s, strike, first=True)

    def _strike(self, mean_s: float, strike: Callable[[], None], *, first: bool = False) -> None:
        if self._over:
            return
        if not first:
            strike()
        self._world.after(self._rng.expovariate(1 / mean_s), self._strike, mean_s, strike)

    def heal(self) -> None:
        """Let nothing go wrong any more, and undo what can be undone; what is down comes back by itself."""
        self._over = True
        self._network.loss = 0.0
        self._network.duplicates = 0.0
        self._network.delay_s = Faults().delay_s
        for partition in list(self._network.partitions):
            self._network.mend(partition)
        self._misfortune.fault = self._misfortune.collect = self._misfortune.deliver = 0.0
        for host in self._hosts:
            host.resume(host.naps)
            host.set_commit_s(COMMIT_S)
            if isinstance(host, Liar):
                host.repent()

    def _any_host(self) -> Host | None:
        host = self._hosts[self._rng.randrange(len(self._hosts))]
        if not host.alive or (host.submits and not self.faults.masters_too):
            return None
        return host

    def _crash(self) -> None:
        host = self._any_host()
        if host is not None:
            self._down(host, host.life)

    def _down(self, host: Host, life: int) -> None:
        if host.alive and host.life == life:
            self.crashes += 1
            silent = self._rng.random() < self.faults.power
            self.power_losses += silent
            host.crash(silent=silent)
            if self._rng.random() < self.faults.wipe:
                self.wipes += 1
                host.lose_disk()
            down_s = self._rng.expovariate(1 / self.faults.down_s)
            self._world.after(min(down_s, 3 * self.faults.down_s), host.start)

    def _leave(self) -> None:
        host = self._any_host()
        if host is not None:
            host.leave()
            self._world.after(self._rng.uniform(0.0, 0.5), self._down, host, host.life)

    def _pause(self) -> None:
        host = self._any_host()
        if host is not None and not host.held:
            self.pauses += 1
            host.pause(asleep=self._rng.random() < self.faults.asleep)
            pause_s = min(self._rng.expovariate(1 / self.faults.pause_s), 10 * self.faults.pause_s)
            self._world.after(pause_s, host.resume, host.naps)

    def _slow_disk(self) -> None:
        host = self._any_host()
        if host is not None:
            host.set_commit_s(self._rng.choice(((0.1, 1.0), (0.1, 20.0), (20.0, 120.0))))
            self._world.after(self._rng.expovariate(1 / 30.0), host.set_commit_s, COMMIT_S)

    def _step(self) -> None:
        host = self._any_host()
        if host is not None:
            host.step_clock(self._rng.randint(-TOLERATED_MS, TOLERATED_MS) - host.skew_ms)

    def _cut(self) -> None:
        count = len(self._hosts)
        size = self._rng.choice((1, 1, max(1, count // 10), max(1, count // 2)))
        side = frozenset(self._rng.sample(range(count), size))
        partition = Partition(side, one_way=self._rng.random() < 0.3)
        self.cuts += 1
        self._network.cut(partition)
        self._world.after(self._rng.expovariate(1 / self.faults.cut_s), self._mend, partition)

    def _mend(self, partition: Partition) -> None:
        if partition in self._network.partitions:
            self._network.mend(partition)

    def _drop(self) -> None:
        link = self._network.any_link(self._rng)
        if link is not None:
            self._network.drop(link)

    def _clog(self) -> None:
        link = self._network.any_link(self._rng)
        if link is None:
            return
        links = self._network.links_of(link.dialler) if self._rng.random() < 0.2 else [link]
        until = self._world.now + self._rng.uniform(1.0, 20.0)
        for slow in links:
            slow.slow_until = until

    def _flap(self) -> None:
        self.flaps += 1
        side = frozenset((self._rng.randrange(len(self._hosts)),))
        until = self._world.now + self._rng.expovariate(1 / 30.0)
        self._flap_off(Partition(side, one_way=self._rng.random() < 0.3), until)

    def _flap_off(self, partition: Partition, until: float) -> None:
        if not self._over and self._world.now < until:
            self._network.cut(partition)
            self._world.after(self._rng.uniform(0.2, 1.5), self._flap_on, partition, until)

    def _flap_on(self, partition: Partition, until: float) -> None:
        self._mend(partition)
        self._world.after(self._rng.uniform(0.2, 1.5), self._flap_off, partition, until)
