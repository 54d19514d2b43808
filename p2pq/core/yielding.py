"""The half of a worker that makes room: what it offers, what the owner of its machine lets guests do, how it goes down."""

from collections.abc import Iterable

from msgspec.structs import replace

from p2pq.core import effects as fx
from p2pq.core import events as ev
from p2pq.core.running import Running
from p2pq.core.slots import Attempt, offered, refusal
from p2pq.model.ids import Mono
from p2pq.model.job import REASON_CHARS_MAX, Fault


class Yielding(Running):
    """The attempts that this node holds, in a machine that is first of all its owner's."""

    def _offer(self, event: ev.Offering, now: Mono, out: list[fx.Effect]) -> None:
        """Offer something else from now on; what its owner says of guests holds on top of it."""
        self._machine = event
        welcome = self._verdict.stance == "run"
        profile = replace(event.profile, still=self._verdict.still)
        if profile.accepts and not welcome:
            profile = replace(profile, accepts=False, reason=self._verdict.reason[:REASON_CHARS_MAX])
        event = replace(event, profile=profile)
        if event == self._offering:
            return
        self._offering = event
        self._slots.room = {False: offered(event.profile), True: offered(event.own)}
        self._reports.profiles(self._offering, out, draining=self._draining)
        for own, profile in ((False, event.profile), (True, event.own)):
            unwelcome = [
                attempt
                for attempt in self._slots.waiting(own=own)
                if refusal(attempt.manifest, profile, self._identity.node, own=own)
            ]
            self._hand_back(unwelcome, "evicted", now, out, "" if own else self._verdict.reason)

    def _yield(self, event: ev.OwnerIs, now: Mono, out: list[fx.Effect]) -> None:
        """Let guests run, stand still or go, as this machine's owner wants it; own tasks are the owner's."""
        self._verdict = verdict = event.verdict
        guests = [attempt for attempt in self._slots if not attempt.own and attempt.state != "waiting"]
        match verdict.stance:
            case "run" | "hold":
                for attempt in guests:
                    if attempt.held:
                        self._stillness.let_go(attempt, now, out)
            case "suspend":
                for attempt in guests:
                    if not attempt.held and attempt.state not in {"ending", "packing"}:
                        self._stillness.hold(attempt, verdict.reason, now, out)
            case "evict":
                self._evict(guests, "evicted", event.grace_s, now, out, verdict.reason)
                self._hand_back(
                    [each for each in guests if each.state not in {"ending", "packing"}],
                    "evicted",
                    now,
                    out,
                    verdict.reason,
                )
            case _:  # kill
                self._hand_back(guests, "evicted", now, out, verdict.reason)
        if self._machine is not None:
            self._offer(self._machine, now, out)

    def _drain(self, event: ev.Drain, now: Mono, out: list[fx.Effect]) -> None:
        if not self._draining:
            self._draining = True
            self._asking.stop()
            self._reports.profiles(self._offering, out, draining=self._draining)
        if event.save_s:
            self._evict(self._slots, "draining", event.save_s, now, out)
        self._hand_back(
            [attempt for attempt in self._slots if event.now or attempt.state == "waiting"], "draining", now, out
        )

    def _evict(
        self,
        attempts: Iterable[Attempt],
        fault: Fault,
        save_s: float,
        now: Mono,
        out: list[fx.Effect],
        detail: str = "",
    ) -> None:
        """Tell running attempts to end; what they leave as a checkpoint goes to their master, where that takes it.

        Those that stand still go on for that. What is in doubt does not: it may run elsewhere.
        """
        for attempt in attempts:
            if attempt.state == "running" and attempt.checkpoints and not attempt.doubted and save_s:
                self._stillness.settle(attempt, now)
                attempt.state = "ending"
                attempt.fault, attempt.detail = fault, detail
                kill = fx.Kill(
                    lease=attempt.lease, master=attempt.master, reason=fault, detail=detail, checkpoint_s=save_s
                )
                out.append(kill)

    def check_guests(self) -> None:
        """Assert that guests do what this machine's owner lets them do."""
        stance, still = self._verdict.stance, self._verdict.still
        for attempt in self._slots:
            assert not (attempt.own and attempt.held), "an own task stands still for its owner"
            if not attempt.own:
                assert stance == "run" or attempt.state != "waiting", "a guest waits that is not welcome"
                assert not still or attempt.held or attempt.state in {"ending", "packing"}, "a guest runs on"
                assert stance == "suspend" or not attempt.held, "a guest stands still for nobody"
