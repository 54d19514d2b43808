"""What is wrong with a setting is said in words that need no knowledge of types and schemas."""

import datetime as dt

import msgspec
import pytest

from p2pq.daemon import wording
from p2pq.errors import InvariantError
from p2pq.model.config import Settings
from p2pq.model.ids import to_text

MESH = to_text(b"m" * 32)
WHOLE = "write the other mesh's whole id, 52 characters in quotes, as `p2pq mesh peers` shows it"
DOUBLE = "write [[peer]] in double brackets, once for each other mesh, at most 64 times"
LABEL = "write text in quotes: 1 to 64 letters, digits, dots, dashes, plus signs and underscores"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"bridge": {"batch": "true"}}, 'bridge.batch is the text "true"; write true or false, without quotes'),
        ({"bridge": {"batch": 1}}, "bridge.batch is 1; write true or false"),
        (
            {"node": {"slots": "2"}},
            'node.slots is the text "2"; write a whole number from 0 to 4096, without quotes',
        ),
        ({"node": {"slots": -1}}, "node.slots is -1; write a whole number from 0 to 4096"),
        ({"node": {"slots": True}}, "node.slots is true; write a whole number from 0 to 4096"),
        (
            {"node": {"slots": dt.date(2020, 1, 1)}},
            "node.slots is a date or a time; write a whole number from 0 to 4096",
        ),
        ({"runner": {"time_s": 1.5}}, "runner.time_s is 1.5; write a whole number from 1 to 31622400"),
        ({"runner": {"idle_s": 0}}, "runner.idle_s is 0; write a number above 0 and up to 1000000000"),
        ({"schedule": {"ahead_s": 61.0}}, "schedule.ahead_s is 61.0; write a number from 0 to 60"),
        ({"schedule": {"fairness": "none"}}, 'schedule.fairness is the text "none"; write "time" or "uniform"'),
        ({"config_version": 2}, "config_version is 2; write 1"),
        ({"node": {"name": False}}, "node.name is false; write text in quotes, of at most 64 characters"),
        (
            {"node": {"name": "n" * 65}},
            "node.name is a text of 65 characters; write text in quotes, of at most 64 characters",
        ),
        ({"node": {"peers": "a:1"}}, 'node.peers is the text "a:1"; write a list like ["one", "two"], of at most 64'),
        (
            {"node": {"peers": ["a:1"] * 65}},
            'node.peers is a list of 65; write a list like ["one", "two"], of at most 64',
        ),
        ({"node": {"peers": ["a:1", 9]}}, "node.peers[1] is 9; write text in quotes, of at most 255 characters"),
        ({"node": {"labels": 3}}, 'node.labels is 3; write a table like {name = "value"}'),
        ({"node": {"labels": {"fine": "x", "a b": "c"}}}, f'a name in node.labels is the text "a b"; {LABEL}'),
        ({"node": {"labels": {"room": "x y"}}}, f'node.labels.room is the text "x y"; {LABEL}'),
        ({"node": {"labels": {"room": 12}}}, f"node.labels.room is 12; {LABEL}"),
        ({"node": 3}, "node is 3; write [node] in brackets, and its settings below"),
        ({"node": [{}]}, "node is a list of 1; write [node] in brackets, and its settings below"),
        ({"nodes": {}}, "unknown setting nodes, did you mean `node`?"),
        ({"zzz": 1}, "unknown setting zzz"),
        ({"node": {"slot": 1}}, "unknown setting node.slot, did you mean `node.slots`?"),
        ({"peer": {"mesh": MESH}}, f"peer is a table; {DOUBLE}"),
        ({"peer": [{"mesh": MESH}] * 65}, f"peer is a list of 65; {DOUBLE}"),
        ({"peer": [{"accept": True}]}, f"peer[0].mesh is missing; {WHOLE}"),
        ({"peer": [{"mesh": MESH}, {"mesh": "bee"}]}, f'peer[1].mesh is the text "bee"; {WHOLE}'),
        ({"peer": [{"mesh": MESH, "mash": 1}]}, "unknown setting peer[0].mash, did you mean `peer[0].mesh`?"),
        (
            {"peer": [{"mesh": MESH, "offer": "yes"}]},
            'peer[0].offer is the text "yes"; write true or false, without quotes',
        ),
    ],
)
def test_each_mistake_names_the_setting_what_was_found_and_what_to_write(table, said):
    assert wording.complaint(table, Settings) == said


def test_what_is_not_in_quotes_anyway_is_not_told_to_lose_them():
    assert wording.wrong("P2PQ_NODE_MDNS", "maybe", bool, quoted=False) == (
        'P2PQ_NODE_MDNS is the text "maybe"; write true or false'
    )


def test_there_are_no_words_for_a_type_that_no_setting_has():
    with pytest.raises(InvariantError, match="SetType"):
        wording.wrong("node.x", 3, set[str])


def test_every_setting_has_words_for_what_it_takes():
    for section in msgspec.structs.fields(Settings):
        inner = msgspec.structs.fields(section.type) if isinstance(section.default, msgspec.Struct) else [section]
        for field in inner:
            said = wording.wrong(field.name, dt.date(2020, 1, 1), field.type)
            assert said.startswith(f"{field.name} is a date or a time; write ")
            assert "None" not in said
