"""Neighbours serve neighbours: whom a holder names, how long one waits, and what leaves whom in a small network."""

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from itertools import combinations

import msgspec
import pytest

from p2pq.daemon import blobhttp, neighbours, transfer
from p2pq.daemon.neighbours import Holders, Patience
from p2pq.daemon.transfer import TransferError
from p2pq.errors import DiskFullError
from p2pq.model.ids import NodeId
from p2pq.wire import prims
from p2pq.wire.messages import NEAR_MAX, BlobGone, BlobPush, BlobTickets, BlobWant
from tests.unit.daemon.transferkit import BRIDGE, SOURCE, datas, join, join_far, stations, until

pytestmark = pytest.mark.slow

A, B, C, D, E, F = NODES = [NodeId(bytes([number]) * 32) for number in range(1, 7)]
BLOB, OTHER = b"x" * 32, b"y" * 32

# -- whom a holder names ------------------------------------------------------------------------------------------------


def test_the_first_is_served_and_named_to_the_next_who_are_named_in_turn():
    holders = Holders()
    assert [holders.name(node, BLOB, NODES) for node in NODES] == [None, A, A, B, B, C]
    assert holders.name(A, OTHER, NODES) is None
    assert len(holders) == 7


def test_who_asks_again_gets_it_here():
    holders = Holders()
    holders.name(A, BLOB, NODES)
    assert holders.name(B, BLOB, NODES) is A
    assert holders.name(B, BLOB, NODES) is None
    assert holders.name(A, BLOB, NODES) is None
    assert len(holders) == 2


def test_only_neighbours_of_the_asker_are_named():
    holders = Holders()
    assert [holders.name(A, BLOB, [B]), holders.name(B, BLOB, [C]), holders.name(C, BLOB, [B])] == [None, None, B]


def test_who_is_gone_is_named_no_more():
    holders = Holders()
    for blob in (BLOB, OTHER):
        holders.name(A, blob, NODES)
    holders.name(B, BLOB, NODES)
    holders.drop(A)
    assert holders.name(C, BLOB, NODES) is B
    assert holders.name(C, OTHER, NODES) is None
    for node in (B, C):
        holders.drop(node)
    assert len(holders) == 0


def test_no_more_is_remembered_than_the_limit(monkeypatch):
    monkeypatch.setattr(neighbours, "ENTRIES_MAX", 3)
    holders = Holders()
    holders.name(A, BLOB, NODES)
    holders.name(A, OTHER, NODES)
    holders.name(B, BLOB, NODES)
    holders.name(C, BLOB, NODES)  # the other one was asked for longest ago
    assert len(holders) == 3
    assert holders.name(B, OTHER, NODES) is None


# -- how long one waits -------------------------------------------------------------------------------------------------


async def test_patience_ends_when_nothing_comes(monkeypatch):
    monkeypatch.setattr(neighbours, "STALL_S", 0.01)
    patience = Patience()
    with pytest.raises(TimeoutError):
        async with patience.waiting():
            await asyncio.Event().wait()
    patience.renew()


async def test_patience_with_one_who_says_that_it_goes_on_is_longer_than_with_others(monkeypatch):
    monkeypatch.setattr(neighbours, "STALL_S", 0.2)
    patience = Patience()
    ended = []

    async def wait(name, *, says):
        with suppress(TimeoutError):
            async with patience.waiting() as still:
                if says:
                    asyncio.get_running_loop().call_later(0.1, still)
                await asyncio.Event().wait()
        ended.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(wait("says so", says=True))
        group.create_task(wait("is silent", says=False))
    assert ended == ["is silent", "says so"]


async def test_patience_is_renewed_by_whatever_comes(monkeypatch):
    monkeypatch.setattr(neighbours, "STALL_S", 0.2)
    patience = Patience()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    loop.call_later(0.15, patience.renew)
    with pytest.raises(TimeoutError):
        async with patience.waiting():
            await asyncio.Event().wait()
    assert loop.time() - begun > 0.34


# -- a small network ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["all dial", "all are dialled", "some dial"])
def dials(request):
    """Tell who dials: each station, none, or every other one."""
    return {"all dial": lambda _: True, "all are dialled": lambda _: False, "some dial": lambda n: n % 2 == 0}[
        request.param
    ]


@pytest.fixture
def one_by_one(monkeypatch):
    """Let each batch be one blob, as large ones are."""
    monkeypatch.setattr(transfer, "CHUNK", 1200)


@asynccontextmanager
async def network(tmp_path, dials, count=6):
    """Give a source and some who want what it has, all linked to all."""
    async with stations(tmp_path, SOURCE, *NODES[:count]) as (source, *askers):
        for number, (one, two) in enumerate(combinations((*askers, source), 2)):
            join(one, two, dials=dials(number))
        yield source, askers


async def all_fetch(askers, wanted):
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for asker in askers:
            group.create_task(asker.transfers.fetch(SOURCE, wanted, shared=True))
    assert all(asker.store.has(blob) for asker in askers for blob, _ in wanted)


def sent(station):
    """Return the bytes that a station gave as holder, and as neighbour."""
    counters = station.transfers.counters
    return counters["to-fetchers-bytes"], counters["to-neighbours-bytes"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_by_one")
async def test_each_blob_leaves_its_holder_once(tmp_path, dials):
    async with network(tmp_path, dials) as (source, askers):
        wanted = source.fill(*datas(30))
        total = sum(size for _, size in wanted)
        await all_fetch(askers, wanted)
        assert sent(source) == (total, 0)
        given = [sent(asker) for asker in askers]
        print("as neighbours, in parts of the whole:", [round(near / total, 2) for _, near in given])
        assert all(own == 0 for own, _ in given)
        assert sum(near for _, near in given) == 5 * total
        assert max(near for _, near in given) < 3 * total
        assert sum(asker.transfers.counters["from-holders-bytes"] for asker in askers) == total
        assert sum(asker.transfers.counters["from-neighbours-bytes"] for asker in askers) == 5 * total


@pytest.mark.slow
async def test_blobs_of_different_sizes_and_many_small_ones(tmp_path, dials):
    async with network(tmp_path, dials, 3) as (source, askers):
        wanted = source.fill(*datas(100, 10), os.urandom(blobhttp.SENDFILE_BYTES), os.urandom(3 << 20))
        await all_fetch(askers, wanted)
        assert sent(source) == (sum(size for _, size in wanted), 0)


async def test_who_comes_later_gets_it_from_those_who_have_it(tmp_path, dials):
    async with network(tmp_path, dials, 4) as (source, askers):
        wanted = source.fill(*datas())
        total = sum(size for _, size in wanted)
        for asker in askers:
            await all_fetch([asker], wanted)
        assert sent(source) == (total, 0)
        assert [sent(asker)[1] for asker in askers] == [2 * total, total, 0, 0]


@pytest.mark.usefixtures("one_by_one")
async def test_behind_a_bridge_each_blob_crosses_and_leaves_it_once(tmp_path, dials):
    async with stations(tmp_path, BRIDGE, SOURCE, *NODES[:4]) as (bridge, source, *askers):
        join(source, bridge, dials=dials(0))
        for number, asker in enumerate(askers):
            join(asker, bridge, dials=dials(number))
            join_far(asker, bridge, source)
        for number, (one, two) in enumerate(combinations(askers, 2)):
            join(one, two, dials=dials(number))
        wanted = source.fill(*datas(12))
        total = sum(size for _, size in wanted)
        await all_fetch(askers, wanted)
        assert sent(source) == (total, 0)
        assert sent(bridge) == (total, 0)


async def test_results_have_one_fetcher_and_are_asked_for_as_ever(tmp_path, dials):
    async with network(tmp_path, dials, 2) as (source, askers):
        wanted = askers[0].fill(*datas(3))
        await source.transfers.fetch(A, wanted)
        asked = [message for message in source.said if type(message) in (BlobWant, BlobPush)]
        assert asked
        assert not any(message.near or message.soon for message in asked)


async def test_neighbours_are_those_without_a_bridge_between(tmp_path):
    async with network(tmp_path, lambda _: True, 3) as (_, askers):
        one = askers[0]
        one.transfers.link_up(D, True, f"via:{B.hex()}:{D.hex()}", B)
        assert one.transfers._neighbours(SOURCE) == (B, C)
        assert one.transfers._neighbours(C) == (B, SOURCE)
        for number in range(NEAR_MAX):
            one.transfers.link_up(NodeId(bytes([9, number]) * 16), False, "127.0.0.1:9")
        assert len(one.transfers._neighbours(SOURCE)) == NEAR_MAX


# -- older nodes --------------------------------------------------------------------------------------------------------


def older(message):
    """Drop what minor version 3 does not know."""
    fields = {"near", "soon", "hints"} & set(message.__struct_fields__)
    return msgspec.structs.replace(message, **{name: False if name == "soon" else () for name in sorted(fields)})


async def test_older_nodes_get_all_of_it_from_the_holder(tmp_path, dials):
    async with network(tmp_path, dials, 3) as (source, askers):
        wanted = source.fill(*datas(5))
        for asker in askers:
            asker.filter = older
        await all_fetch(askers, wanted)
        assert sent(source) == (3 * sum(size for _, size in wanted), 0)


async def test_an_older_neighbour_gives_what_it_has(tmp_path, dials):
    async with network(tmp_path, dials, 2) as (source, (one, two)):
        wanted = source.fill(*datas(5))
        total = sum(size for _, size in wanted)
        await all_fetch([one], wanted)
        two.filter = lambda message: older(message) if getattr(message, "soon", False) else message
        await all_fetch([two], wanted)
        assert sent(source) == (total, 0)
        assert sent(one) == (total, 0)


# -- neighbours that fail -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def one_has_it(tmp_path, dials):
    """Give a source, one who has got all from it, another who has not, and what there is."""
    async with network(tmp_path, dials, 2) as (source, (one, two)):
        wanted = source.fill(*datas(8))
        await all_fetch([one], wanted)
        yield source, one, two, wanted


async def test_a_neighbour_that_has_it_no_more_costs_a_question(tmp_path, dials):
    async with one_has_it(tmp_path, dials) as (source, one, two, wanted):
        one.store.discard([blob for blob, _ in wanted])
        await all_fetch([two], wanted)
        assert sent(source) == (2 * sum(size for _, size in wanted), 0)
        assert two.transfers._neighbours(SOURCE) == (A,)


async def test_a_neighbour_that_sends_other_bytes_is_left_alone_for_a_while(tmp_path, dials):
    async with one_has_it(tmp_path, dials) as (source, one, two, wanted):
        for blob, size in wanted:
            one.store.path(blob).write_bytes(os.urandom(size))
        await all_fetch([two], wanted)
        assert all(prims.blob_id(two.store.get(blob)) == blob for blob, _ in wanted)
        assert sent(source) == (2 * sum(size for _, size in wanted), 0)
        assert two.transfers._neighbours(SOURCE) == ()
        assert two.transfers.counters["neighbours-given-up"] > 0
        two.transfers._clock.now += neighbours.SHUN_S
        assert two.transfers._neighbours(SOURCE) == (A,)


async def test_a_neighbour_that_is_silent_costs_one_stall(tmp_path, dials, monkeypatch):
    monkeypatch.setattr(neighbours, "STALL_S", 0.1)
    async with one_has_it(tmp_path, dials) as (source, one, two, wanted):
        one.filter = lambda _message: None
        one.transfers._http.put = never
        await all_fetch([two], wanted)
        assert sent(source) == (2 * sum(size for _, size in wanted), 0)
        assert two.transfers._neighbours(SOURCE) == ()


async def test_a_neighbour_that_goes_in_the_middle_costs_nothing(tmp_path, dials):
    async with one_has_it(tmp_path, dials) as (source, _, two, wanted):
        asked = asyncio.Event()

        def lose(message):
            if getattr(message, "soon", False):
                asked.set()
                return None
            return message

        two.filter = lose
        task = asyncio.get_running_loop().create_task(two.transfers.fetch(SOURCE, wanted, shared=True))
        await asked.wait()
        for each, other in ((source, A), (two, A)):
            each.transfers.link_down(other)
        await task
        assert sent(source) == (2 * sum(size for _, size in wanted), 0)


@pytest.mark.slow
async def test_a_neighbour_that_is_still_getting_it_is_waited_for(tmp_path, dials, monkeypatch):
    """Longer than one that is silent, and however slow the holder is."""
    monkeypatch.setattr(neighbours, "STALL_S", 0.2)
    monkeypatch.setattr(transfer, "STILL_S", 0.05)
    async with network(tmp_path, dials, 2) as (source, (one, two)):
        wanted = source.fill(b"payload")
        held = asyncio.Event()
        put, get = source.transfers._http.put, one.transfers._http.get

        async def put_later(*args, **options):
            await held.wait()
            return await put(*args, **options)

        async def get_later(*args, **options):
            await held.wait()
            return await get(*args, **options)

        source.transfers._http.put, one.transfers._http.get = put_later, get_later
        async with asyncio.TaskGroup() as group:
            group.create_task(one.transfers.fetch(SOURCE, wanted, shared=True))
            await until(lambda: source.transfers._holders)
            group.create_task(two.transfers.fetch(SOURCE, wanted, shared=True))
            await until(lambda: len(one.said_of(BlobTickets) + one.said_of(BlobGone)) > 0.4 / 0.05)
            held.set()
        assert sent(source) == (7, 0)
        assert sent(one) == (0, 7)


async def test_a_neighbour_that_does_not_get_it_either_says_so(tmp_path, dials, monkeypatch):
    monkeypatch.setattr(transfer, "FAR_ANSWER_S", 0.01)
    async with network(tmp_path, dials, 2) as (source, (one, two)):
        wanted = source.fill(b"payload")
        one.transfers._flights[wanted[0][0]] = {SOURCE: asyncio.get_running_loop().create_future()}
        source.transfers._holders.name(A, wanted[0][0], ())
        await all_fetch([two], wanted)
        assert sent(source) == (7, 0)
        one.transfers._flights.clear()


@pytest.mark.parametrize("hints", [(1,), (2,) * 5, (0,) * 20, (NEAR_MAX,) * 5])
async def test_hostile_hints(tmp_path, dials, hints, monkeypatch):
    """To nobody, to one who has nothing, too few, too many: what was not had is asked for again."""
    monkeypatch.setattr(transfer, "PAUSES_S", (0.0, 0.0, 0.0))
    async with network(tmp_path, dials, 3) as (source, askers):
        wanted = source.fill(*datas(5))

        def lie(message):
            if type(message) is BlobTickets:
                return BlobTickets(req=message.req, tickets=(), hints=hints)
            return BlobGone(req=message.req, blobs=message.blobs, hints=hints)

        source.filter = lie
        source.transfers._http.put = refuse
        with pytest.raises(TransferError, match="5 of 5"):
            await askers[0].transfers.fetch(SOURCE, wanted, shared=True)
        asked = [message for message in askers[0].said if message.near]
        assert len(asked) == 3 * 3, "three rounds of three batches"


async def refuse(*_args, **_options):
    return False


async def never(*_args, **_options):
    await asyncio.Event().wait()


async def test_a_full_disk_is_told_as_such(tmp_path, dials, monkeypatch):
    async with one_has_it(tmp_path, dials) as (_, _, two, wanted):

        def full(*_args, **_options):
            raise DiskFullError("the disk is full")

        monkeypatch.setattr(two.store, "put", full)
        with pytest.raises(DiskFullError):
            await two.transfers.fetch(SOURCE, wanted, shared=True)


# -- for its owner's sake -----------------------------------------------------------------------------------------------


async def test_only_so_many_blobs_go_to_neighbours_at_once(tmp_path, dials, monkeypatch):
    monkeypatch.setattr(blobhttp, "UPLOADS_MAX", 1)
    async with one_has_it(tmp_path, dials) as (source, one, two, wanted):
        slots = one.transfers._http._uploads
        await slots.acquire()
        task = asyncio.get_running_loop().create_task(two.transfers.fetch(SOURCE, wanted, shared=True))
        await until(lambda: slots._waiters or task.done())
        await source.transfers.fetch(A, one.fill(b"a result"))  # which is no favour, does not wait
        assert not any(two.store.has(blob) for blob, _ in wanted)
        slots.release()
        await task
        assert sent(one) == (8, sum(size for _, size in wanted))
