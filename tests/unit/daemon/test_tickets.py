"""Tickets by themselves; how they meet HTTP is in test_transfer."""

import os

import pytest

from p2pq.daemon import tickets
from p2pq.daemon.tickets import TICKET_S, Tickets
from p2pq.errors import DiskFullError
from p2pq.model.ids import NodeId

ALICE = NodeId(b"a" * 32)
BOB = NodeId(b"b" * 32)
HOST = "10.0.0.1"
BLOB = bytes(32)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def given(clock):
    return Tickets(clock, os.urandom)


@pytest.mark.parametrize(
    ("text", "address"),
    [("fe80::1%eth0", "fe80::1"), ("::1", "::1"), ("0::1", "::1"), ("10.0.0.1", "10.0.0.1"), ("name", ""), ("", "")],
)
def test_spelling(text, address):
    assert tickets.normal(text) == address


def test_a_ticket_to_get_is_good_once(given):
    token = given.to_get(ALICE, HOST, BLOB)
    assert len(token) == 32
    ticket = given.admit(token, HOST, put=False)
    assert (ticket.peer, ticket.blob) == (ALICE, BLOB)
    assert given.admit(token, HOST, put=False) is None
    assert len(given) == 0


async def test_a_ticket_to_put_is_good_once_and_lives_until_its_end(given):
    token, arrived = given.to_put(ALICE, HOST, (BLOB, 7))
    ticket = given.admit(token, HOST, put=True)
    assert (ticket.size, ticket.blob) == (7, BLOB)
    assert given.admit(token, HOST, put=True) is None
    given.revoke(token)  # under way: it goes on
    assert not arrived.done()
    error = DiskFullError("full")
    given.end(token, error)
    given.end(token)
    assert arrived.result() is error
    assert len(given) == 0


async def test_wrong_method_address_or_token_spoil_nothing(given):
    get = given.to_get(ALICE, HOST, BLOB)
    put, _ = given.to_put(ALICE, HOST, (BLOB, 7))
    for token, method in ((get, False), (put, True)):
        assert given.admit(token, HOST, put=not method) is None
        assert given.admit(token, "10.0.0.2", put=method) is None
        assert given.admit(token, "", put=method) is None
        assert given.admit(bytes(32), HOST, put=method) is None
        assert given.admit(token, HOST, put=method) is not None


async def test_stale_tickets(given, clock):
    get = given.to_get(ALICE, HOST, BLOB)
    put, arrived = given.to_put(ALICE, HOST, (BLOB, 7))
    clock.now = TICKET_S
    assert given.admit(get, HOST, put=False) is None
    assert given.admit(put, HOST, put=True) is None
    given.to_get(ALICE, HOST, BLOB)  # forgets the stale ones
    assert arrived.result() is None
    assert len(given) == 1


def test_limit_is_per_peer(given, monkeypatch):
    monkeypatch.setattr(tickets, "TICKETS_MAX", 2)
    assert all(given.to_get(ALICE, HOST, BLOB) for _ in range(2))
    assert given.to_get(ALICE, HOST, BLOB) == b""
    assert given.to_get(BOB, HOST, BLOB)


async def test_drop_ends_all_of_a_peer(given):
    given.to_get(ALICE, HOST, BLOB)
    kept = given.to_get(BOB, HOST, BLOB)
    _, arrived = given.to_put(ALICE, HOST, (BLOB, 7))
    given.drop(ALICE)
    given.drop(ALICE)
    assert arrived.result() is None
    assert len(given) == 1
    assert given.admit(kept, HOST, put=False)


async def test_revoke_ends_what_was_not_used(given):
    token, arrived = given.to_put(ALICE, HOST, (BLOB, 7))
    given.revoke(token)
    given.revoke(token)
    assert arrived.result() is None


async def test_who_waits_may_have_gone(given):
    token, arrived = given.to_put(ALICE, HOST, (BLOB, 7))
    arrived.cancel()
    given.end(token)
    assert arrived.cancelled()
