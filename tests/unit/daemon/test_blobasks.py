"""What is asked of one peer, and what becomes of its answers; both directions over real sockets are in test_transfer."""

import os
from types import SimpleNamespace

import pytest

from p2pq.daemon import blobasks
from p2pq.daemon.blobasks import Asks, PeerLink, Pushed, Terms
from p2pq.daemon.tickets import Tickets
from p2pq.model.ids import NodeId
from p2pq.wire.messages import BlobGone, BlobPush, BlobTickets, BlobWant

PEER, NEAR, SOURCE = (NodeId(bytes([number]) * 32) for number in (1, 2, 3))
ONE, TWO = b"1" * 32, b"2" * 32
BATCH = {ONE: 11, TWO: 22}
HOST = "10.0.0.1"


class Bench:
    """A node whose peer answers as told, and whose HTTP only notes what it is asked."""

    def __init__(self, *, dialled):
        self.said, self.got = [], []
        self.tickets = Tickets(lambda: 0.0, os.urandom)
        self.asks = Asks(SimpleNamespace(get=self.get), self.tickets, self.say)
        self.link = PeerLink(dialled=dialled, host=HOST, url="http://peer/")
        self.answer = lambda _: None

    def say(self, peer, message):
        assert peer == PEER
        self.said.append(message)
        answer = self.answer(message)
        match answer:
            case BlobTickets():
                self.asks.answered(self.link, answer)
            case BlobGone():
                self.asks.gone(self.link, answer)
        return answer is not None

    async def get(self, peer, url, ref, *, near):
        self.got.append((peer, url, ref, near))

    async def ask(self, terms):
        return await self.asks.ask(PEER, self.link, BATCH, terms)


TERMS = [
    (Terms(), {}, False),
    (Terms(near=(NEAR,)), {"near": (NEAR,)}, False),
    (Terms(source=SOURCE), {"source": SOURCE, "sizes": (11, 22)}, True),
    (Terms(soon=True), {"soon": True}, True),
]


@pytest.mark.parametrize(("terms", "fields", "patient"), TERMS)
async def test_a_want_says_the_terms_and_its_tickets_are_used(terms, fields, patient):
    bench = Bench(dialled=True)
    bench.answer = lambda want: BlobTickets(req=want.req, tickets=(b"", b"t" * 32), hints=(1, 0))
    assert tuple(await bench.ask(terms)) == (1, 0)
    assert bench.said == [BlobWant(req=1, blobs=(ONE, TWO), **fields)]
    assert bench.got == [(PEER, f"http://peer/{(b't' * 32).hex()}", (TWO, 22), terms.soon)]
    assert bench.link.answers == {}
    assert terms.patient is patient


@pytest.mark.parametrize(("terms", "fields", "patient"), TERMS)
async def test_a_push_says_the_terms_and_what_is_gone_is_not_waited_for(terms, fields, patient):
    bench = Bench(dialled=False)
    lives = []

    def answer(push):
        lives.extend(bench.tickets._tickets[token].expires for token in push.tickets)
        return BlobGone(req=push.req, blobs=(TWO, ONE), hints=(0, 1))

    bench.answer = answer
    assert list(await bench.ask(terms)) == [1, 0]
    (push,) = bench.said
    assert push == BlobPush(req=1, blobs=(ONE, TWO), tickets=push.tickets, **fields)
    assert lives == [blobasks.FAR_ANSWER_S if patient else blobasks.TICKET_S] * 2
    assert len(bench.tickets) == 0
    assert bench.link.pushes == {}


@pytest.mark.parametrize("dialled", [True, False])
async def test_a_link_that_is_gone(dialled):
    bench = Bench(dialled=dialled)
    assert not any(await bench.ask(Terms()))
    assert bench.got == []
    assert len(bench.tickets) == 0


async def test_a_want_that_ends_with_its_link():
    bench = Bench(dialled=True)

    def answer(want):
        bench.link.answers[want.req].set_result(None)
        return want

    bench.answer = answer
    assert tuple(await bench.ask(Terms())) == ()


@pytest.mark.parametrize("hints", [(), (3,), (0, 7, 9, 11)])
def test_hints_may_be_too_few_or_too_many(hints):
    bench = Bench(dialled=False)
    pushed = bench.link.pushes[5] = Pushed({b"t": ONE, b"u": TWO})
    bench.asks.gone(bench.link, BlobGone(req=5, blobs=(ONE, TWO), hints=hints))
    assert pushed.hints == dict(zip((ONE, TWO), hints, strict=False))


@pytest.mark.parametrize("dialled", [True, False])
async def test_a_neighbour_that_goes_on_says_so_before_it_answers(dialled):
    bench = Bench(dialled=dialled)
    signs = []
    empty, full = (
        (BlobTickets(req=1, tickets=()), BlobTickets(req=1, tickets=(b"", b"")))
        if dialled
        else (BlobGone(req=1, blobs=()), BlobGone(req=1, blobs=(ONE, TWO)))
    )
    take = bench.asks.answered if dialled else bench.asks.gone

    def answer(_):
        take(bench.link, empty)
        take(bench.link, empty)
        return full

    bench.answer = answer
    assert not any(await bench.ask(Terms(soon=True, still=lambda: signs.append("still"))))
    assert signs == ["still", "still"]
    assert bench.link.still == {}


def test_answers_to_what_was_not_asked_are_ignored():
    bench = Bench(dialled=True)
    bench.asks.answered(bench.link, BlobTickets(req=5, tickets=(b"t" * 32,)))
    bench.asks.gone(bench.link, BlobGone(req=5, blobs=(ONE,)))
    assert (bench.said, bench.got) == ([], [])
