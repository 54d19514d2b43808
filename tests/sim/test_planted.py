"""Faults that are planted are found out, and what finds them can be repeated: results by task, words said twice, a leak."""

import re

import pytest

from p2pq.core.events import LinkUp
from p2pq.core.node import Node
from p2pq.wire import messages as msg
from simulations import __main__ as command
from simulations.checkers import Broken
from simulations.network import Network
from simulations.planted import planted
from simulations.play import play
from simulations.scenarios import SCENARIOS
from simulations.swarm import drawn

CHATTY, HEAVY = 700298, 700419
"""Seeds in which most is said, and remembered, for what the work and the links call for."""
SCENARIO = SCENARIOS["partitions"]


def play_ten():
    with planted():
        for seed in range(1, 11):
            play(SCENARIO, seed)


def test_partitions_find_the_planted_fault():
    with pytest.raises(Broken, match="a result under another lease"):
        play_ten()


def test_failing_seeds_are_printed_with_what_to_type(capsys):
    arguments = ["seeds", "--count", "4", "--scenario", "partitions", "--nodes", "20", "--planted"]
    assert command.main(arguments) == 1
    again = re.search(
        r"python -m simulations (--seed \d+ --scenario partitions --nodes 20 --planted)", capsys.readouterr().out
    )
    assert again is not None
    with pytest.raises(Broken):
        command.main(again.group(1).split())


def test_without_it_the_same_seeds_pass(capsys):
    assert command.main(["seeds", "--count", "1", "--scenario", "partitions"]) == 0
    assert "0 failed; 300 tasks settled" in capsys.readouterr().out


def test_a_bridge_that_repeats_itself_is_noticed(monkeypatch):
    """Of three bridges in a row each says every word about masters twice: the worst seed without it says 0.82 of the bound."""
    send = Network.send

    def twice(self, host, peer, message):
        inner = message.message if isinstance(message, msg.Through) else message
        for _ in range(1 + isinstance(inner, msg.MasterIs | msg.Parted | msg.Holding | msg.ProfileIs)):
            send(self, host, peer, message)

    play(drawn(CHATTY), CHATTY)
    monkeypatch.setattr(Network, "send", twice)
    with pytest.raises(Broken, match="more was said"):
        play(drawn(CHATTY), CHATTY)


def test_a_node_that_forgets_nothing_of_its_links_is_noticed(monkeypatch):
    """Two kilobytes for each link that ever came up; the worst seed without it takes 0.76 of the bound."""
    handle = Node.handle

    def leak(self, event, now):
        if isinstance(event, LinkUp):
            self.leaked = [*getattr(self, "leaked", []), bytes(2000)]
        return handle(self, event, now)

    play(drawn(HEAVY), HEAVY)
    monkeypatch.setattr(Node, "handle", leak)
    with pytest.raises(Broken, match="remembers more"):
        play(drawn(HEAVY), HEAVY)
