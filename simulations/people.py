"""People at the machines: they come and go at random, and each machine's policy says what guests may do meanwhile."""

from collections.abc import Sequence
from random import Random
from typing import Protocol

from p2pq.core import events as ev
from p2pq.core.policy import OwnerPolicy
from p2pq.model.config import PolicySettings
from p2pq.model.ids import Mono
from p2pq.model.owner import Readings, Verdict
from simulations.checkers import insist
from simulations.host import Host
from simulations.world import World

LOOK_S = 2.0
COMES_S, STAYS_S = 40.0, 15.0
"""How long people are away, and how long they stay, on average."""
DAY_S = 100.0
"""Days are short here: night comes every so many seconds."""
LEAVE_S = 400.0
"""Then everybody goes home, and it is night for good, so that all work gets done."""


def settings(mode: str) -> PolicySettings:
    """Return a policy with its times shortened."""
    return PolicySettings(mode=mode, idle_s=10.0, load_pause_s=6.0, resume_s=5.0, evict_s=20.0, grace_s=0.0)


class Stage(Protocol):
    """What people act on."""

    @property
    def world(self) -> World:
        """The clock."""
        ...

    @property
    def hosts(self) -> Sequence[Host]:
        """The machines."""
        ...


def come_and_go(stage: Stage, policy: PolicySettings) -> None:
    """Let each machine have its people."""
    for host in stage.hosts:
        Person(stage.world, host, policy)


class Person:
    """Whoever uses one machine, and its policy."""

    def __init__(self, world: World, host: Host, settings: PolicySettings) -> None:
        """Be away."""
        self._world = world
        self._host = host
        self._settings = settings
        self._rng: Random = world.rng(f"person {host.index}")
        self._policy = OwnerPolicy(settings)
        self._there = False
        self._touched = -1e6
        self._life = -1
        self._told = Verdict()
        world.after(self._rng.expovariate(1 / COMES_S), self._come)
        world.after(0.0, self._look)

    def _come(self) -> None:
        if self._world.now < LEAVE_S:
            self._there = True
            if self._rng.random() < 0.2:
                self._policy.pause(Mono(self._world.now + self._rng.uniform(1.0, 60.0)), self._world.now)
            self._world.after(self._rng.expovariate(1 / STAYS_S), self._go)
            self._see()

    def _go(self) -> None:
        self._there = False
        self._touched = self._world.now
        self._world.after(self._rng.expovariate(1 / COMES_S), self._come)
        self._see()

    def _look(self) -> None:
        self._see()
        self._world.after(LOOK_S, self._look)

    def _readings(self) -> Readings:
        now = self._world.now
        return Readings(
            idle_s=0.0 if self._there else now - self._touched,
            locked=not self._there,
            full_screen=False,
            load=0.8 if now < LEAVE_S and self._rng.random() < 0.1 else 0.1,
            mains=True,
            programs=(),
            minute=int(now / DAY_S * 1440) % 1440 if now < LEAVE_S else 0,
        )

    def _see(self) -> None:
        verdict = self._policy.sense(self._readings(), self._world.now)
        host = self._host
        if not host.alive or host.held or (host.life == self._life and verdict == self._told):
            return
        self._life, self._told = host.life, verdict
        self._world.notices[f"Owner({verdict.stance})"] += 1
        host.post(ev.OwnerIs(verdict=verdict, grace_s=self._settings.grace_s))
        self._judge()

    def _judge(self) -> None:
        """At once, whatever else goes on, guests do what this machine's owner lets them do."""
        states = [guest.state for guest in self._host.node.guests(self._world.now) if not guest.own]
        stance = self._told.stance
        if stance != "kill":  # of what has left its slot nothing runs any more
            states = [state for state in states if state != "packing"]
        insist(stance == "run" or "waiting" not in states, "a guest waits where none may begin")
        insist(stance not in {"evict", "kill"} or not states, "a guest is still there that was sent away")
        insist(stance != "suspend" or set(states) <= {"suspended"}, "a guest runs while the owner is back")
