"""What a bridge asks a master for, and when."""

import pytest

from p2pq.core import restock as module
from p2pq.core.asking import QUIET_MAX_S, SHORT_JOBS_MAX
from p2pq.core.restock import CALM_MAX_S, DOUBT_S, STOCK_MAX, WINDOW_MAX_S, WINDOW_MIN_S, Restock
from p2pq.core.serving import OPEN_MAX
from p2pq.core.slots import Room
from p2pq.model.config import ScheduleSettings
from p2pq.model.ids import JobId, Mono, NodeId
from p2pq.wire import codec
from p2pq.wire import messages as msg
from p2pq.wire.messages import PLACES_MAX
from p2pq.wire.objects import ITEMS_MAX
from tests.unit.core.workerkit import job_id, nonce

LEA, LEO = NodeId(b"a" * 32), NodeId(b"o" * 32)
ROOM = Room(2, 100, 1)
T0 = Mono(0.0)


class Numbers:
    """Draws nonces that are numbers."""

    def __init__(self) -> None:
        self.last = 0

    def draw(self, size: int) -> bytes:
        self.last += 1
        return self.last.to_bytes(size, "big")


@pytest.fixture
def restock() -> Restock:
    made = Restock("ann", ScheduleSettings(), Numbers().draw)
    made.has_work(msg.HasWork(counter=1, owners=("ann",)))
    return made


def want(leaf: NodeId = LEA, room: Room = ROOM, **fields) -> module.Want:
    plain = {"nonce": nonce(1), "owner": "ann", "cpus": room.cpus, "tasks_max": 8}
    return leaf, room, msg.Request(**(plain | fields))


def none(_: JobId) -> int:
    return 0


def ask(restock: Restock, *wants, stock=none, total: int = 0, now: float = 0.0) -> msg.Request | None:
    request = restock.request(wants, stock, total, Mono(now))
    restock.check()
    return request


def busy(restock: Restock, job: JobId, attempts: int, took_s: float, *, ok: bool = True) -> None:
    """Let so many attempts of a job be below, after as many that took so long."""
    restock.placed(job, attempts, T0)
    for _ in range(attempts):
        restock.placed(job, -1, Mono(took_s))
        restock.ended(job, took_s, Mono(took_s), ok=ok)
        restock.placed(job, 1, Mono(took_s))


def nothing(number: int, counter: int = 1) -> msg.Nothing:
    return msg.Nothing(nonce=nonce(number), owner="ann", counter=counter)


def test_rooms_are_asked_with_together_leaf_by_leaf(restock: Restock) -> None:
    request = ask(restock, want(), want(LEO), want(room=Room(1, 1, 0), tasks_max=8))
    assert request == msg.Request(
        nonce=nonce(1),
        owner="ann",
        cpus=5,
        memory_mb=201,
        gpus=2,
        tasks_max=5,
        places=(msg.Place(LEA, 3, 101, 1), msg.Place(LEO, 2, 100, 1)),
    )


def test_a_leaf_that_asks_again_and_again_with_much_room_makes_no_request_that_cannot_be_read(restock: Restock) -> None:
    most = Room(4096, 1 << 30, 64)
    asked = [want(room=most) for _ in range(OPEN_MAX * PLACES_MAX)]
    request = ask(restock, *asked, want(LEO))
    assert request is not None
    assert request.places == (msg.Place(LEA, 1 << 20, 1 << 30, 1 << 10), msg.Place(LEO, 2, 100, 1))
    assert codec.decode_lenient(codec.encode(request), msg.Message, size_max=msg.MESSAGE_BYTES_MAX) == request


def test_there_is_one_request_at_a_time(restock: Restock) -> None:
    assert ask(restock, want()) is not None
    assert not restock.may_ask
    assert ask(restock, want(LEO)) is None
    assert restock.answer(nonce(2), T0) is None
    assert restock.answer(nonce(1), T0) is not None
    assert restock.answer(nonce(1), T0) is None
    assert ask(restock, want(LEO)) is not None


def test_nothing_is_asked_for_where_there_is_no_work_or_nothing_is_wanted(restock: Restock) -> None:
    assert ask(restock) is None
    assert ask(restock, want(room=Room())) is None
    restock.has_work(msg.HasWork(counter=2))
    assert ask(restock, want()) is None
    restock.has_work(msg.HasWork(counter=3, owners=("ann",)))
    restock.stop()
    assert not restock.has_work(msg.HasWork(counter=3, owners=("ann",)))
    assert restock.has_work(msg.HasWork(counter=4, owners=("ann",)))
    assert ask(restock, want()) is None


def test_a_request_names_no_more_than_it_may(restock: Restock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES_MAX", 1)
    request = ask(restock, want(), want(), want(LEO))
    assert request is not None
    assert [place.leaf for place in request.places] == [LEA]
    restock.answer(request.nonce, T0)
    monkeypatch.undo()
    wide = Room(1 << 20, 1 << 30, 1 << 10)
    request = ask(restock, want(room=wide, tasks_max=ITEMS_MAX), want(LEO, wide, tasks_max=ITEMS_MAX))
    assert request is not None
    assert (request.cpus, request.memory_mb, request.gpus) == (1 << 20, 1 << 30, 1 << 10)
    assert request.tasks_max == ITEMS_MAX


def test_the_stock_is_what_the_cluster_takes_in_three_and_a_half_seconds_and_is_filled_up_for_the_last_half_of_one(
    restock: Restock,
) -> None:
    busy(restock, job_id(), 20, 1.0 - DOUBT_S)
    assert restock.target(job_id()) == 70
    assert restock.target(job_id(2)) == 0
    assert restock.low(none)
    assert restock.low(lambda _: 9)
    assert not restock.low(lambda _: 10)
    request = ask(restock, stock=lambda _: 4)
    assert request is not None
    assert (request.cpus, request.places, request.ahead, request.tasks_max) == (0, (), ((job_id(), 66),), 66)


def test_those_that_end_first_are_the_shortest_and_others_run_on(restock: Restock) -> None:
    restock.placed(job_id(), 10, T0)
    restock.placed(job_id(), -1, Mono(0.1))
    restock.ended(job_id(), 0.1, Mono(0.1), ok=True)
    assert restock.target(job_id()) == 10, "one has ended in a tenth of a second, which says little"
    restock.placed(job_id(), 100, Mono(0.1))
    assert restock.target(job_id()) == 10, "what has just gone below, perhaps to wait there, makes nobody faster"


def test_a_job_that_changes_is_known_anew(restock: Restock) -> None:
    busy(restock, job_id(), 50, 10.0)
    assert restock.target(job_id()) == 17
    restock.placed(job_id(), -40, Mono(10.0))
    for number in range(200):
        restock.placed(job_id(), -1, Mono(10.0 + number / 10))
        restock.ended(job_id(), 1.0, Mono(10.0 + number / 10), ok=True)
        restock.placed(job_id(), 1, Mono(10.0 + number / 10))
    assert restock.target(job_id()) >= 26
    restock.check()


def test_a_job_of_which_nothing_is_left_is_forgotten(restock: Restock) -> None:
    busy(restock, job_id(), 3, 0.5)
    restock.placed(job_id(), -3, Mono(0.5))
    assert restock.target(job_id()) == 0
    restock.late(job_id())
    assert restock._flows == {}
    restock.placed(job_id(2), 1, Mono(0.5))
    restock.placed(job_id(2), -1, Mono(0.5))
    assert restock._flows == {}


def test_or_in_two_round_trips(restock: Restock) -> None:
    busy(restock, job_id(), 20, 1.0 - DOUBT_S)
    restock.answer(ask(restock, want()).nonce, Mono(2.0))
    assert restock.target(job_id()) == 80
    assert restock.low(lambda _: 39), "what is asked for now is here in a round trip"
    assert not restock.low(lambda _: 40)
    restock.answer(ask(restock, want(), now=2.0).nonce, Mono(2.0))
    assert restock.target(job_id()) == 70, "a round trip is short again"


def test_a_stock_has_bounds(restock: Restock) -> None:
    busy(restock, job_id(), 10_000, 0.0)
    assert restock.target(job_id()) == ITEMS_MAX
    request = ask(restock, total=STOCK_MAX - 3)
    assert request is not None
    assert request.ahead == ((job_id(), 3),)
    restock.answer(request.nonce, T0)
    assert ask(restock, total=STOCK_MAX) is None
    request = ask(restock, want(), total=STOCK_MAX)
    assert request is not None
    assert request.ahead == ()


def test_only_jobs_that_do_well_are_kept_in_stock(restock: Restock) -> None:
    busy(restock, job_id(), 10, 0.5, ok=False)
    assert restock.target(job_id()) == 0
    busy(restock, job_id(), 10, 0.5)
    assert restock.target(job_id()) > 0
    restock.late(job_id())
    assert restock.target(job_id()) == 0
    for number in range(SHORT_JOBS_MAX + 1):
        busy(restock, job_id(number + 10), 10, 0.5)
    restock.check()
    assert restock.target(job_id(10)) == 0
    assert restock.target(job_id(11)) > 0


def test_what_leaves_want_ahead_is_asked_for_too(restock: Restock) -> None:
    request = ask(restock, want(ahead=((job_id(), 3), (job_id(2), 0))), want(LEO, ahead=((job_id(), 4),)))
    assert request is not None
    assert (request.ahead, request.tasks_max) == (((job_id(), 7),), 11)


def test_a_master_that_had_nothing_is_asked_again_for_more_room_or_when_it_says_so(restock: Restock) -> None:
    busy(restock, job_id(), 10, 0.5)
    asked = restock.answer(ask(restock, want()).nonce, T0)
    assert asked is not None
    restock.nothing(asked, nothing(1))
    assert restock.asleep
    assert restock.covered(LEA, ROOM)
    assert not restock.covered(LEA, Room(3, 1, 0))
    assert not restock.covered(LEO, ROOM)
    assert not restock.low(none)
    asked = restock.answer(ask(restock, want(LEO)).nonce, T0)
    assert asked is not None
    restock.nothing(asked, nothing(2, counter=0))
    assert restock.covered(LEO, ROOM)
    assert restock.covered(LEA, ROOM)
    restock.forget(LEO)
    assert not restock.covered(LEO, ROOM)
    assert restock.has_work(msg.HasWork(counter=2, owners=("ann",)))
    assert not restock.covered(LEA, ROOM)
    assert restock.low(none)


def test_what_was_nothing_before_counts_no_more_after_news(restock: Restock) -> None:
    asked = restock.answer(ask(restock, want()).nonce, T0)
    assert asked is not None
    restock.nothing(asked, nothing(1, counter=1))
    restock.has_work(msg.HasWork(counter=2, owners=("ann",)))
    asked = restock.answer(ask(restock, want(LEO)).nonce, T0)
    assert asked is not None
    restock.nothing(asked, nothing(2, counter=2))
    assert restock.covered(LEO, ROOM)
    assert not restock.covered(LEA, ROOM)


def test_strikes_double_the_pause_until_something_is_of_use(restock: Restock) -> None:
    assert [restock.strike() for _ in range(3)] == [1.0, 2.0, 4.0]
    assert restock.quiet
    assert ask(restock, want()) is None
    restock.quiet = False
    assert ask(restock, want()) is not None
    restock.useful()
    assert restock.strike() == 1.0
    assert [restock.strike() for _ in range(20)][-1] == QUIET_MAX_S


def test_windows_follow_the_mean_attempt(restock: Restock) -> None:
    assert restock.window_s == restock.doze_s == restock.calm_s(stock=True) == WINDOW_MIN_S
    busy(restock, job_id(), 1, 0.5)
    assert (restock.window_s, restock.doze_s) == (WINDOW_MIN_S, 0.5)
    assert (restock.calm_s(stock=False), restock.calm_s(stock=True)) == (0.5, 1.0)
    busy(restock, job_id(), 1, 30.0)
    assert restock.window_s > WINDOW_MIN_S
    assert restock.doze_s == ScheduleSettings().request_s / 2
    assert (restock.calm_s(stock=False), restock.calm_s(stock=True)) == (WINDOW_MAX_S, CALM_MAX_S)
    busy(restock, job_id(2), 1, 1000.0)
    assert restock.window_s == WINDOW_MAX_S


def test_news_waits_for_no_more_than_a_quarter_of_a_heartbeat() -> None:
    restock = Restock("ann", ScheduleSettings(heartbeat_s=2.0), bytes)
    busy(restock, job_id(), 1, 30.0)
    assert restock.calm_s(stock=True) == restock.calm_s(stock=False) == 0.5
