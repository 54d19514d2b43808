"""Whom to ask, in the cases that a whole worker seldom meets; the rest is tested through it."""

from random import Random

import pytest

from p2pq.core import asking as module
from p2pq.core.asking import AHEAD_MAX, SHORT_JOBS_MAX, Asking, Timer
from p2pq.core.deadlines import Deadlines
from p2pq.core.fairness import Means, accounts
from p2pq.core.lately import KEEP_S
from p2pq.core.slots import Room
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import Mono
from p2pq.wire.messages import HasWork, Nothing, Request
from tests.unit.core.workerkit import ANN, BOB, ME, job_id, nonce

ROOM = Room(4, 100, 0)


NOW = Mono(0.0)


class Bench:
    def __init__(self) -> None:
        self.numbers = 0
        self.deadlines: Deadlines[Timer] = Deadlines()
        self.accounts = accounts(10.0)
        self.asking = Asking(
            ME.node, ScheduleSettings(), self.accounts, Means(), self.deadlines, Random(1), self.entropy
        )
        self.asking.linked(ANN.node)

    def entropy(self, size: int) -> bytes:
        self.numbers += 1
        return self.numbers.to_bytes(size, "big")

    def announce(self, counter: int, *owners: str) -> None:
        self.asking.has_work(ANN.node, HasWork(counter=counter, owners=owners))

    def plan(self, free: Room = ROOM, *, slots: int = 4, waiting_s: float = 0.0) -> list[Request]:
        requests = self.asking.plan(free, slots, waiting_s, Mono(0.0), own=False)
        self.asking.check()
        return [request for _, request in requests]

    def nothing(self, number: int, counter: int) -> None:
        self.asking.nothing(ANN.node, Nothing(nonce=nonce(number), owner="ann", counter=counter), ROOM, Mono(0.0))


def test_an_answer_to_no_request_is_ignored():
    bench = Bench()
    bench.announce(1, "ann")
    bench.plan()
    bench.nothing(9, 1)
    bench.asking.linked(BOB.node)
    assert bench.asking.answer(BOB.node, nonce(1), NOW) is None
    assert bench.asking.answer(ANN.node, nonce(1), NOW) is not None


def test_old_news_is_ignored():
    bench = Bench()
    bench.announce(2, "ann")
    bench.announce(1)
    assert bench.asking.has_any(ANN.node)
    bench.announce(3)
    assert not bench.asking.has_any(ANN.node)
    assert not bench.asking.has_any(BOB.node)


def test_the_largest_room_asked_with_counts():
    bench = Bench()
    bench.announce(1, "ann")
    bench.plan(Room(1, 100, 0))
    bench.plan(Room(4, 100, 0))
    bench.nothing(2, 1)
    bench.nothing(1, 1)
    # The second answer, to a smaller request, does not make the first forgotten.
    assert bench.plan(Room(3, 100, 0)) == []
    assert [request.cpus for request in bench.plan(Room(4, 101, 0))] == [4]


def test_who_is_asked_again_is_asked_with_all_there_is():
    bench = Bench()
    bench.announce(1, "ann", "bob")
    asked = []
    for _ in range(20):
        for request in bench.plan(Room(8, 100, 0)):
            asked.append(request.cpus)
            message = Nothing(nonce=request.nonce, owner=request.owner, counter=1)
            bench.asking.nothing(ANN.node, message, ROOM, Mono(0.0))
    # Shares first, then everything once for each (one of them has it twice where a share was left over).
    assert sum(asked[:2]) == 8
    assert asked.count(8) == 2
    assert len(asked) <= 5


def test_memory_alone_wakes_nobody():
    bench = Bench()
    bench.announce(1, "ann")
    bench.asking.ended(ANN.node, job_id(1), "ann", 0.5, ok=True)
    (request,) = bench.plan(Room(0, 100, 1), slots=1)
    bench.asking.nothing(ANN.node, Nothing(nonce=request.nonce, owner="ann", counter=1), ROOM, Mono(0.0))
    assert bench.plan(Room(0, 100, 1), slots=1) == []
    assert [request.cpus for request in bench.plan(Room(1, 100, 1), slots=1)] == [1]


def test_leases_ahead_are_of_the_owner_that_was_drawn():
    bench = Bench()
    bench.announce(1, "ann", "bob")
    for _ in range(4):
        bench.asking.ended(ANN.node, job_id(1), "ann", 0.5, ok=True)
        bench.asking.ended(ANN.node, job_id(2), "bob", 0.25, ok=True)
    requests = bench.plan(slots=1)
    first = requests[0]
    ahead = {"ann": ((job_id(1), 2),), "bob": ((job_id(2), 4),)}
    assert first.ahead == ahead[first.owner]
    # One of them at a time asks for leases ahead.
    assert [request.ahead for request in requests[1:]] == [()] * (len(requests) - 1)


def test_without_a_free_cpu_only_short_jobs_are_asked_for():
    bench = Bench()
    bench.announce(1, "ann")
    assert bench.plan(Room(0, 0, 0)) == []
    for _ in range(AHEAD_MAX):
        bench.asking.ended(ANN.node, job_id(1), "ann", 0.001, ok=True)
    assert bench.plan(Room(0, 0, 0), waiting_s=2.5) == []
    (request,) = bench.plan(Room(0, 0, 0), slots=1)
    assert (request.cpus, request.ahead) == (0, ((job_id(1), AHEAD_MAX),))
    assert bench.plan(Room(0, 0, 0), slots=1) == []


def test_no_more_of_a_job_is_asked_for_ahead_than_has_ended_here():
    bench = Bench()
    bench.announce(1, "ann")
    counts = []
    for _ in range(12):
        bench.asking.ended(ANN.node, job_id(1), "ann", 0.125, ok=True)
        counts += [count for request in bench.plan(slots=1) for _, count in request.ahead]
        bench.asking.stop()
    # One lucky attempt of a long job proves little.
    assert counts == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8]


def test_the_owner_drawn_for_leases_ahead_may_have_no_short_job():
    bench = Bench()
    bench.announce(1, "ann", "bob")
    bench.asking.ended(ANN.node, job_id(1), "ann", 0.5, ok=True)
    owners = []
    for _ in range(20):
        owners.append([request.owner for request in bench.plan(Room(0, 0, 0), slots=1)])
        bench.asking.stop()
    assert [] in owners
    assert ["ann"] in owners
    assert ["bob"] not in owners


def turn_of_bob() -> Bench:
    """Both have work, of ann a short job is known, and bob was drawn while there was only room ahead."""
    bench = Bench()
    bench.announce(1, "ann", "bob")
    bench.asking.ended(ANN.node, job_id(1), "ann", 0.5, ok=True)
    while bench.plan(Room(0, 0, 0), slots=1):
        bench.asking.stop()
    return bench


def test_whoever_was_drawn_and_has_no_short_job_has_the_next_that_is_free():
    bench = turn_of_bob()
    for _ in range(20):
        assert bench.plan(Room(0, 0, 0), slots=1) == [], "nobody gets ahead of whose turn it is"
    assert [request.owner for request in bench.plan(Room(1, 1024, 0), slots=1)] == ["bob"]


def test_nobody_from_afar_has_a_turn_to_wait_here():
    bench = turn_of_bob()
    assert bench.asking.has_turn
    bench.asking.linked(ANN.node, far=True)
    assert not bench.asking.has_turn
    bench.asking.gone(ANN.node)
    assert not bench.asking.has_turn


def test_a_turn_is_over_with_the_offer():
    bench = turn_of_bob()
    bench.announce(2, "ann")
    assert [request.owner for request in bench.plan(Room(0, 0, 0), slots=1)] == ["ann"]


def test_a_turn_is_over_once_leases_ahead_can_be_asked_of_its_owner():
    bench = turn_of_bob()
    assert bench.asking.has_turn
    bench.asking.ended(ANN.node, job_id(2), "bob", 0.5, ok=True)
    assert not bench.asking.has_turn
    assert len(bench.plan(Room(0, 0, 0), slots=1)) == 1


def test_an_owner_of_whom_nothing_is_known_gets_its_share_of_many_slots_at_once():
    shares = []
    for _ in range(20):
        bench = Bench()
        bench.asking._rng.seed(len(shares))
        bench.announce(1, "ann", "bob")
        bench.asking.ended(ANN.node, job_id(1), "ann", 0.5, ok=True)
        requests = bench.plan(Room(16, 16384, 0), slots=16)
        shares.append(sum(request.cpus for request in requests if request.owner == "bob"))
    assert 6 <= sum(shares) / len(shares) <= 10


def test_who_has_a_short_job_that_does_not_fit_into_the_wait_has_no_turn_for_it():
    bench = Bench()
    bench.announce(1, "ann", "bob")
    bench.asking.ended(ANN.node, job_id(1), "ann", 0.9, ok=True)
    bench.asking.ended(ANN.node, job_id(2), "bob", 0.1, ok=True)
    owners = []
    for _ in range(60):
        owners.append([request.owner for request in bench.plan(Room(0, 0, 0), slots=1, waiting_s=0.4)])
        bench.asking.stop()
    assert owners.count([]) > 0
    assert owners[-20:].count(["bob"]) > 0, "nothing is kept for who was drawn meanwhile"


def test_what_no_longer_fits_into_the_wait_is_not_asked_for():
    bench = Bench()
    bench.announce(1, "ann")
    bench.asking.ended(ANN.node, job_id(1), "ann", 0.9, ok=True)
    assert [request.ahead for request in bench.plan(slots=1, waiting_s=0.2)] == [()]


def test_short_jobs_are_bounded_and_long_ones_leave(monkeypatch):
    monkeypatch.setattr(module, "SHORT_JOBS_MAX", 2)
    assert SHORT_JOBS_MAX == 64
    bench = Bench()
    bench.announce(1, "ann")
    for number in (1, 2, 3):
        bench.asking.ended(ANN.node, job_id(number), "ann", 0.5, ok=True)
    assert [job for job, _ in bench.plan(slots=1)[0].ahead] == [job_id(3), job_id(2)]
    bench.asking.stop()
    bench.asking.ended(ANN.node, job_id(3), "ann", 100.0, ok=True)
    bench.asking.grown(ANN.node, job_id(2))
    assert bench.plan(slots=1)[0].ahead == ()


def test_masters_that_are_gone_are_not_spoken_of():
    bench = Bench()
    bench.asking.gone(BOB.node)
    bench.asking.ended(BOB.node, job_id(1), "bob", 0.1, ok=True)
    bench.asking.grown(BOB.node, job_id(1))
    bench.asking.strike(BOB.node, Mono(0.0))
    bench.asking.set_full(BOB.node, full=True)
    assert len(bench.deadlines) == 0
    assert bench.asking.mean_s(job_id(9), "bob") == 0.1
    assert bench.asking.mean_s(job_id(9), "cat") == 10.0


def test_a_master_with_too_many_unacknowledged_results_is_not_asked():
    bench = Bench()
    bench.announce(1, "ann")
    bench.asking.set_full(ANN.node, full=True)
    assert bench.plan() == []
    bench.asking.set_full(ANN.node, full=False)
    assert len(bench.plan()) == 1


def test_pauses_double_up_to_a_minute():
    bench = Bench()
    pauses = []
    for _ in range(9):
        bench.asking.strike(ANN.node, Mono(0.0))
        bench.asking.strike(ANN.node, Mono(0.0))
        pauses.append(bench.deadlines.get(("quiet", ANN.node)))
        bench.deadlines.cancel(("quiet", ANN.node))
        bench.asking.unquiet(ANN.node)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_who_was_asked_before_a_sleep_has_the_full_time_to_answer():
    bench = Bench()
    bench.announce(1, "ann")
    assert len(bench.plan()) == 1
    assert bench.deadlines.next == 2.0
    bench.asking.woke(Mono(60.0))
    assert bench.deadlines.next == 62.0


# -- wide tasks -----------------------------------------------------------------------------------------------------------


def wide(bench: Bench, request: Request, cpus: int = 4, memory_mb: int = 0) -> None:
    message = Nothing(nonce=request.nonce, owner=request.owner, counter=1, wide=(cpus, memory_mb, 0))
    bench.asking.nothing(ANN.node, message, ROOM, Mono(0.0))


def keeping() -> Bench:
    """Ann's only task needs all four cpus, and one was free when she was asked; Bob has narrow ones."""
    bench = Bench()
    bench.announce(1, "ann")
    (request,) = bench.plan(Room(1, 100, 0))
    wide(bench, request)
    bench.asking.linked(BOB.node)
    bench.asking.has_work(BOB.node, HasWork(counter=1, owners=("bob",)))
    return bench


def test_what_becomes_free_is_kept_for_a_wide_task_until_it_is_enough():
    bench = keeping()
    assert bench.plan(Room(1, 100, 0)) == []
    assert bench.plan(Room(3, 100, 0)) == []
    (request,) = bench.plan(Room(4, 100, 0))
    assert (request.owner, request.cpus) == ("ann", 4)
    assert bench.plan(Room(4, 100, 0)) == [], "asked once"
    assert bench.asking.answer(ANN.node, request.nonce, NOW) is not None
    assert len(bench.plan(Room(1, 100, 0))) == 1, "whoever's turn it is"


def test_nothing_is_kept_for_what_can_never_run_here_or_fits_already():
    for cpus, memory_mb in ((5, 0), (2, 101), (0, 0)):
        bench = Bench()
        bench.announce(1, "ann")
        (request,) = bench.plan(Room(1, 100, 0))
        wide(bench, request, cpus, memory_mb)
        bench.asking.linked(BOB.node)
        bench.asking.has_work(BOB.node, HasWork(counter=1, owners=("bob",)))
        assert [request.owner for request in bench.plan(Room(1, 100, 0))] == ["bob"]


def test_room_is_let_go_of_when_it_is_not_wanted_any_more():
    bench = keeping()
    bench.asking.gone(BOB.node)
    assert bench.plan(Room(1, 100, 0)) == [], "another one's end changes nothing"
    for end in (
        lambda bench: bench.announce(2),
        lambda bench: bench.asking.gone(ANN.node),
        lambda bench: bench.asking.strike(ANN.node, Mono(0.0)),
        lambda bench: bench.asking.set_full(ANN.node, full=True),
        lambda bench: bench.asking.stop(),
    ):
        bench = keeping()
        end(bench)
        assert "bob" in [request.owner for request in bench.plan(Room(1, 100, 0))]


def test_a_wide_task_that_is_gone_is_asked_for_once():
    bench = keeping()
    (request,) = bench.plan(Room(4, 100, 0))
    bench.nothing(int.from_bytes(request.nonce, "big"), 1)
    assert [request.owner for request in bench.plan(Room(4, 100, 0))] == ["bob"]


def test_one_is_kept_room_for_at_a_time():
    bench = keeping()
    (request,) = bench.asking.plan(Room(1, 100, 0), 4, 0.0, Mono(0.0), own=True) or [None]
    assert request is None
    bench = Bench()
    bench.announce(1, "ann", "bob")
    first, second = bench.plan(Room(2, 100, 0)) if len(bench.plan(Room(0, 0, 0))) == 0 else (None, None)
    wide(bench, first)
    wide(bench, second, cpus=3)
    assert bench.plan(Room(3, 100, 0)) == []


@pytest.mark.parametrize(
    ("answer_s", "length_s", "counts"), [(0.01, 2.0, []), (0.2, 2.0, [4]), (0.2, 3.9, []), (5.0, 20.0, [])]
)
def test_a_lease_ahead_for_each_slot_is_worth_it_where_answers_take_long(answer_s, length_s, counts):
    """Tasks of two seconds: a round trip of a hundredth does not matter, one of a fifth leaves slots empty.

    What takes longer would be handed back before it could begin.
    """
    bench = Bench()
    bench.announce(1, "ann")
    for _ in range(8):
        bench.asking.ended(ANN.node, job_id(1), "ann", length_s, ok=True)
    [request] = bench.plan()
    assert bench.asking.answer(ANN.node, request.nonce, Mono(answer_s)) is not None
    bench.asking.ended(ANN.node, job_id(1), "ann", length_s, ok=True)
    bench.announce(2, "ann")
    assert [count for request in bench.plan() for _, count in request.ahead] == counts
    assert [request.ahead for request in bench.plan(Room(), waiting_s=4.5)] == [], "more than half of it waits already"


def test_masters_behind_bridges_are_asked_for_what_is_left():
    bench = Bench()
    bench.asking.linked(BOB.node, far=True)
    bench.asking.has_work(BOB.node, HasWork(counter=1, owners=("bob",)))
    bench.announce(1, "ann")
    [request] = bench.plan()
    assert request.owner == "ann"
    bench.nothing(1, 1)
    assert {request.owner for request in bench.plan()} == {"bob"}


# -- own network first ----------------------------------------------------------------------------------------------------


def sided(near: int = 0) -> Bench:
    """Bob is behind a bridge and has work; so many cpus work for this network, and Ann has nothing."""
    bench = Bench()
    bench.asking.linked(BOB.node, far=True)
    bench.asking.has_work(BOB.node, HasWork(counter=1, owners=("bob",)))
    bench.asking.lately.take_in(near, NOW)
    return bench


def asks(bench: Bench, free: Room, at: float) -> list[tuple[int, int, int]]:
    requests = bench.asking.plan(free, 4, 0.0, Mono(at), own=False)
    bench.asking.check()
    return [(request.cpus, request.memory_mb, request.gpus) for _, request in requests]


def test_what_the_own_network_left_a_moment_ago_is_kept_for_it():
    bench = sided(near=3)
    bench.asking.lately.take_in(1, Mono(5.0))
    assert asks(bench, Room(3, 300, 1), 5.0) == [(1, 100, 1)]
    assert bench.deadlines.next == 5.0 + KEEP_S
    assert asks(bench, Room(3, 300, 1), 5.2) == []
    assert asks(bench, Room(3, 300, 1), 5.0 + KEEP_S) == [(2, 200, 0)]


def test_what_is_kept_is_all_there_is():
    bench = sided(near=4)
    bench.asking.lately.take_in(0, Mono(5.0))
    assert asks(bench, Room(2, 200, 1), 5.0) == []
    assert bench.deadlines.next == 5.0 + KEEP_S
    # Its own network may have it at once.
    bench.announce(1, "ann")
    assert asks(bench, Room(2, 200, 1), 5.2) == [(2, 200, 1)]


def test_nothing_is_kept_where_nobody_behind_a_bridge_has_anything():
    bench = Bench()
    bench.asking.lately.take_in(4, NOW)
    bench.asking.lately.take_in(0, Mono(5.0))
    assert asks(bench, ROOM, 5.0) == []
    assert bench.deadlines.next is None


def test_nothing_from_behind_a_bridge_waits_for_a_slot_that_the_own_network_had():
    bench = sided(near=1)
    for _ in range(8):
        bench.asking.ended(BOB.node, job_id(1), "bob", 0.5, ok=True)
    bench.asking.lately.take_in(0, Mono(5.0))
    assert asks(bench, Room(), 5.2) == []
    assert asks(bench, Room(), 5.0 + KEEP_S) == [(0, 0, 0)]


def test_room_for_a_wide_task_behind_a_bridge_is_of_what_the_own_network_leaves():
    bench = sided(near=4)
    (request,) = bench.asking.plan(Room(1, 100, 0), 4, 0.0, NOW, own=False)[:1]
    message = Nothing(nonce=request[1].nonce, owner="bob", counter=1, wide=(3, 0, 0))
    bench.asking.nothing(BOB.node, message, ROOM, NOW)
    bench.asking.lately.take_in(0, Mono(5.0))
    assert asks(bench, ROOM, 5.0) == [], "it is kept for this network, too"
    assert asks(bench, ROOM, 5.0 + KEEP_S) == [(4, 100, 0)]


def test_no_room_is_kept_for_a_wide_task_behind_a_bridge_while_the_own_network_has_work():
    bench = sided()
    (request,) = bench.asking.plan(Room(1, 100, 0), 4, 0.0, NOW, own=False)
    message = Nothing(nonce=request[1].nonce, owner="bob", counter=1, wide=(3, 0, 0))
    bench.asking.nothing(BOB.node, message, ROOM, NOW)
    assert asks(bench, Room(1, 100, 0), 1.0) == []
    bench.announce(1, "ann")
    assert [request.owner for request in bench.plan(Room(1, 100, 0))] == ["ann"]


def test_what_a_master_behind_a_bridge_is_asked_for_is_charged_on_its_side():
    bench = sided()
    [request] = bench.plan(Room(1, 100, 0))
    assert bench.accounts[True].given(NOW) == {"bob": 10.0}
    bench.announce(1, "ann")
    bench.plan(Room(2, 200, 0))
    assert bench.accounts[False].given(NOW) == {"ann": 10.0}
    assert bench.asking.answer(BOB.node, request.nonce, NOW) is not None
    assert bench.accounts[True].given(NOW) == {"bob": 0.0}


def test_a_job_that_turns_out_to_be_short_is_asked_for_ahead_where_others_were_refused():
    bench = Bench()
    bench.announce(1, "ann")
    bench.asking.ended(ANN.node, job_id(1), "ann", 0.1, ok=True)
    assert [request.ahead for request in bench.plan(Room(), slots=1)] == [((job_id(1), 1),)]
    bench.nothing(1, 1)
    assert bench.plan(Room(), slots=1) == [], "it has said that there is nothing"
    bench.asking.ended(ANN.node, job_id(1), "ann", 0.1, ok=True)
    assert bench.plan(Room(), slots=1) == [], "and nothing has changed for that job"
    bench.asking.ended(ANN.node, job_id(2), "ann", 0.1, ok=True)
    [request] = bench.plan(Room(), slots=1)
    assert job_id(2) in [job for job, _ in request.ahead]


def test_who_was_refused_a_free_cpu_is_not_asked_again_for_a_job_that_turns_out_to_be_short():
    bench = Bench()
    bench.announce(1, "ann")
    bench.plan()
    bench.nothing(1, 1)
    bench.asking.ended(ANN.node, job_id(1), "ann", 0.1, ok=True)
    assert bench.plan() == []
