"""Room, who takes it, and at which isolation."""

import msgspec
import pytest

from p2pq.core.slots import Attempt, Room, Slots, asked, level, offered, refusal
from p2pq.model.ids import LeaseId, Mono
from p2pq.model.job import Profile, Resources
from p2pq.wire.objects import BlobRef
from tests.unit.core.workerkit import ANN, BOB, ME, PROFILE, manifest

WIDE = Resources(cpus=2, memory_mb=100, gpus=1)


NARROW = Resources()


def attempt(counter: int, resources: Resources = NARROW, *, own: bool = False, far: bool = False) -> Attempt:
    return Attempt(
        master=ANN.node,
        lease=LeaseId(1, counter),
        manifest=manifest(resources=resources),
        task=0,
        attempt=1,
        key=b"",
        own=own,
        far=far,
        sandbox="strict",
    )


def test_room_adds_up():
    assert Room(1, 2, 3).plus(Room(4, 5, 6)) == Room(5, 7, 9)
    assert Room(1, 2, 3).minus(Room(4, 5, 6)).floored() == Room(0, 0, 0)
    assert offered(PROFILE) == Room(2, 4096, 1)
    assert asked(WIDE) == Room(2, 100, 1)


@pytest.mark.parametrize("other", [Room(3, 0, 0), Room(0, 3, 0), Room(0, 0, 3)])
def test_room_holds_what_fits_in_every_respect(other):
    assert Room(2, 2, 2).holds(Room(2, 2, 2))
    assert not Room(2, 2, 2).holds(other)


@pytest.mark.parametrize(
    ("proved", "wanted", "guest", "own"),
    [
        ("strict", "strict", "strict", "strict"),
        ("strict", "basic", "strict", "strict"),
        ("strict", "none", "strict", "none"),
        ("basic", "strict", None, "basic"),
        ("basic", "basic", "basic", "basic"),
        ("basic", "none", None, "none"),
        ("none", "strict", None, "none"),
        ("none", "basic", None, "none"),
        ("none", "none", None, "none"),
    ],
)
def test_guests_get_what_is_proved_or_nothing_and_own_tasks_what_is_proved_or_none(proved, wanted, guest, own):
    profile = Profile(sandbox=proved, accepts=True)
    assert level(manifest(sandbox=wanted), profile, own=False) == guest
    assert level(manifest(sandbox=wanted), profile, own=True) == own


def test_a_refusal_says_why():
    closed = msgspec.structs.replace(PROFILE, accepts=False)
    assert refusal(manifest(), closed, ME.node, own=False) == "guests are not accepted"
    assert refusal(manifest(), closed, ME.node, own=True) == ""
    assert refusal(manifest(only=BOB.node), PROFILE, ME.node, own=False) == "meant for another node"
    assert refusal(manifest(only=ME.node), PROFILE, ME.node, own=False) == ""


def test_attempts_start_in_order_as_room_frees():
    slots = Slots()
    slots.room = {False: Room(2, 100, 1), True: Room(1, 0, 0)}
    first, wide, last, own = attempt(1), attempt(2, WIDE), attempt(3), attempt(4, own=True)
    for each in (first, wide, last, own):
        slots.add(each)
    assert slots.next(own=False) is first
    slots.start((first,), Mono(1.0))
    slots.check()
    assert slots.next(own=False) is None
    assert slots.next(own=True) is own
    slots.remove(first)
    assert slots.next(own=False) is wide
    slots.start((wide,), Mono(2.0))
    assert slots.free(own=False) == Room(0, 0, 0)
    slots.remove(wide)
    slots.remove(last)
    assert slots.next(own=False) is None
    assert [each.lease for each in slots] == [own.lease]
    assert slots.of(BOB.node) == ()
    slots.remove(own)
    assert len(slots) == 0
    slots.check()


def test_what_guests_of_this_network_take_is_counted():
    slots = Slots()
    slots.room = {False: Room(4, 400, 1), True: Room(4, 0, 0)}
    near, far, own = attempt(1, WIDE), attempt(2, far=True), attempt(3, own=True)
    for each in (near, far, own):
        slots.add(each)
        assert slots.near == (0 if each is near else 2), "what waits takes nothing"
        slots.start((each,), Mono(1.0))
        assert slots.near == 2
        slots.check()
    for each in (own, far):
        slots.remove(each)
        assert slots.near == 2
    slots.remove(near)
    assert slots.near == 0
    slots.check()


def test_those_of_a_train_take_one_slot_until_the_last_has_ended():
    slots = Slots()
    slots.room = {False: Room(), True: Room(2, 0, 0)}
    train = tuple(attempt(counter, own=True) for counter in range(3))
    for each in train:
        slots.add(each)
    slots.start(train, Mono(1.0))
    slots.check()
    assert slots.free(own=True) == Room(1, 0, 0)
    assert [each.state for each in train] == ["starting"] * 3
    slots.remove(train[0])
    slots.next_of(train[0].train, Mono(2.0))
    assert [each.since for each in train[1:]] == [Mono(2.0)] * 2, "the slot is theirs from now on"
    slots.put_back(list(train[1:]))
    slots.check()
    assert slots.free(own=True) == Room(2, 0, 0)
    assert [(each.state, each.since, each.train) for each in train[1:]] == [("waiting", None, 0)] * 2


def test_what_did_not_begin_on_a_train_comes_before_what_waited():
    slots = Slots()
    slots.room = {False: Room(), True: Room(1, 0, 0)}
    train = tuple(attempt(counter, own=True) for counter in range(3))
    later = attempt(9, own=True)
    for each in (*train, later):
        slots.add(each)
    slots.start(train, Mono(1.0))
    slots.put_back([train[1], train[2]])
    slots.check()
    assert slots.waiting(own=True) == (train[1], train[2], later)
    assert slots.free(own=True) == Room(), "the first still has the slot"


def test_each_slot_gets_its_part_of_what_is_alike():
    slots = Slots()
    slots.room = {False: Room(), True: Room(2, 0, 0)}
    alike = [attempt(counter, own=True) for counter in range(5)]
    other = attempt(7, own=True)
    other.manifest = manifest(number=2)
    doubted, saved = attempt(8, own=True), attempt(9, own=True)
    doubted.doubted, saved.checkpoint = Mono(0.0), (BlobRef(b"c" * 32, 1),)
    for each in (*alike[:4], other, alike[4], doubted, saved):
        slots.add(each)
    assert slots.behind(alike[0], 64) == tuple(alike[:3]), "half of five, rounded up"
    assert slots.behind(alike[0], 2) == tuple(alike[:2])
    assert slots.behind(alike[3], 64) == (alike[3],), "only what stands right behind it"
    assert slots.behind(other, 64) == (other,)
    assert slots.behind(saved, 64) == (saved,)
