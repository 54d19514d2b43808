"""Own network first, whatever happens: beside the real queue, counts of what waits and of what is free."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pq.core import events as ev
from p2pq.core.overflow import HOLD_S
from p2pq.model.job import Profile, Resources
from p2pq.wire import messages as msg
from tests.unit.core.mesh import OK, Bench, GrantItem, Member, job_id, ready, result_item, submitted

GATE = Member("gate").node
NEAR = [Member(f"near {number}") for number in range(3)]
FAR = [Member(f"far {number}") for number in range(2)]
SLOTS = {False: 4, True: 20}
"""Of each worker, by whether it is behind the bridge."""
WIDE = 3


class Sides(RuleBasedStateMachine):
    """One master, workers here and behind a bridge, jobs of narrow and wide tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.bench.tick()
        self.jobs = 0
        self.held: dict[bytes, list[tuple[int, GrantItem]]] = {member.node: [] for member in (*NEAR, *FAR)}
        self.up: dict[bytes, Member] = {}
        self.waits: dict[int, float] = {}
        """Since when something of a job waits while there is anybody behind the bridge."""
        self.told: dict[bytes, bool] = {}

    def see(self, effects: list[object]) -> None:
        for effect in effects:
            message = getattr(effect, "message", None)
            if isinstance(message, msg.HasWork):
                self.told[effect.peer] = bool(message.owners)
        pending = {job.job: job.pending for job in self.bench.queue.jobs()}
        for number in range(1, self.jobs + 1):
            if not pending.get(job_id(number)):
                self.waits.pop(number, None)
            else:
                self.waits.setdefault(number, self.bench.now)

    @rule(member=st.sampled_from((*NEAR, *FAR)))
    def join(self, member: Member) -> None:
        path = (GATE,) if member in FAR else ()
        profile = Profile(slots=SLOTS[member in FAR], memory_mb=4096, sandbox="strict", accepts=True)
        if member in FAR and not any(other in FAR for other in self.up.values()):
            self.waits = dict.fromkeys(self.waits, self.bench.now)
        self.up[member.node] = member
        self.told[member.node] = False
        self.see(self.bench.do(member.link_up(path=path)))
        held = tuple(item.lease for _, item in self.held[member.node])
        self.see(self.bench.says(member, msg.Holding(leases=held)))
        self.see(self.bench.says(member, msg.ProfileIs(profile=profile)))

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        node = data.draw(st.sampled_from(list(self.up)))
        del self.up[node]
        self.see(self.bench.do(ev.LinkDown(peer=node, reason="gone")))

    @rule(tasks=st.integers(1, 20), cpus=st.sampled_from((1, 1, WIDE)))
    def submit(self, tasks: int, cpus: int) -> None:
        self.jobs += 1
        self.see(self.bench.do(submitted(self.jobs, tasks=tasks, resources=Resources(cpus=cpus))))

    @rule(pause=st.sampled_from((0.01, 0.1, HOLD_S, 1.0)))
    def wait(self, pause: float) -> None:
        self.see(self.bench.tick(pause))

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        """Ask with all that is free, as a worker does that serves nobody else."""
        member = self.up[data.draw(st.sampled_from(list(self.up)))]
        free = SLOTS[member in FAR] - self.taken(member)
        if free <= 0:
            return
        waits, room = self.pending(), self.room()
        young = all(self.bench.now < since + HOLD_S for since in self.waits.values())
        effects = self.bench.ask(member, cpus=free, tasks_max=free)
        count = self.take(member, effects)
        if member in FAR and young and room is not None:
            assert count <= max(0, waits - room), "a task went far for which there was a free slot here"
        self.see(effects)

    def take(self, member: Member, effects: list[object]) -> int:
        """Hold what was granted; return how many cpus that takes."""
        before = self.taken(member)
        for effect in effects:
            notice = getattr(effect, "notice", None)
            if type(notice).__name__ == "TaskGranted":
                number = int.from_bytes(notice.job, "big")
                self.held[member.node].append((number, GrantItem(notice.task, notice.attempt, notice.lease)))
        return self.taken(member) - before

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        able = [member for member in self.up.values() if self.held[member.node]]
        if not able:
            return
        member = data.draw(st.sampled_from(able))
        number, item = self.held[member.node].pop(0)
        self.see(self.bench.says(member, ready(member, result_item(item, OK, number))))
        self.see(self.bench.do(ev.Collected(lease=item.lease)))

    def cpus(self, number: int) -> int:
        return self.bench.queue._book.jobs[job_id(number)].ask.resources.cpus

    def taken(self, member: Member) -> int:
        jobs = self.bench.queue._book.jobs
        return sum(self.cpus(number) for number, _ in self.held[member.node] if job_id(number) in jobs)

    def pending(self) -> int:
        """Return the cpus that all that waits asks for."""
        return sum(job.pending * job.ask.resources.cpus for job in self.bench.queue.jobs())

    def room(self) -> int | None:
        """Return the free cpus here that tasks of any width fill, at least; None where nobody is linked."""
        near = [SLOTS[False] - self.taken(member) for member in NEAR if member.node in self.up]
        narrow = all(job.ask.resources.cpus == 1 for job in self.bench.queue.jobs() if job.pending)
        return (sum(near) if narrow else 0) if near else None

    @invariant()
    def whatever_waits_is_offered_in_the_end(self) -> None:
        """What had its time here is told to everybody behind bridges that has not been told, or been answered, since."""
        overflow = self.bench.queue._overflow
        if any(self.bench.now >= since + HOLD_S for since in self.waits.values()):
            linked = [node for node in self.up if self.up[node] in FAR]
            assert overflow.open or not linked
            assert all(self.told[node] or node in overflow._far._asleep for node in linked)


Sides.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestSides = Sides.TestCase
