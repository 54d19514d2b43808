from pathlib import Path
from typing import Any

import pytest

from p2pq.daemon.settings import Entry, load, variable
from p2pq.errors import ConfigError
from p2pq.model.config import NodeSettings, Settings
from p2pq.model.ids import to_text

CONFIGS = Path(__file__).parents[3] / "configs"
MESH = to_text(b"m" * 32)


def write(home: Path, text: str) -> Path:
    path = home / "config.toml"
    path.write_text(text)
    return path


def origin(home: Path, key: str, env: dict[str, str], overrides: dict[str, Any]) -> tuple[object, str]:
    entries = {entry.key: entry for entry in load(home, env, overrides).entries}
    return entries[key].value, entries[key].origin


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    effective = load(tmp_path, {})
    assert effective.settings == Settings()
    assert {entry.origin for entry in effective.entries} == {"default"}
    assert effective.entries[0] == Entry(key="node.name", value="", origin="default")
    assert len({entry.key for entry in effective.entries}) == len(effective.entries) > 20


def test_later_layers_win_and_say_so(tmp_path: Path) -> None:
    assert origin(tmp_path, "node.slots", {}, {}) == (None, "default")
    path = write(tmp_path, "[node]\nslots = 1\n[runner]\nidle_s = 9")
    assert origin(tmp_path, "node.slots", {}, {}) == (1, str(path))
    env = {"P2PQ_NODE_SLOTS": "2"}
    assert origin(tmp_path, "node.slots", env, {}) == (2, "P2PQ_NODE_SLOTS")
    assert origin(tmp_path, "node.slots", env, {"node.slots": None}) == (2, "P2PQ_NODE_SLOTS")
    assert origin(tmp_path, "node.slots", env, {"node.slots": 3}) == (3, "option")
    assert origin(tmp_path, "runner.idle_s", env, {"node.slots": 3}) == (9.0, str(path))


def test_other_meshes_stand_in_the_file_and_are_shown(tmp_path: Path) -> None:
    path = write(tmp_path, f"[[peer]]\nmesh = '{MESH}'\naccept = true\n")
    effective = load(tmp_path, {})
    assert effective.settings.welcome == {b"m" * 32: ("submit",)}
    shown = {key: (value, where) for key, value, where in effective.rows() if key.startswith("peer")}
    assert shown == {
        "peer[0].mesh": (MESH, str(path)),
        "peer[0].accept": (True, str(path)),
        "peer[0].offer": (False, str(path)),
        "peer[0].bridge": (False, str(path)),
    }


def test_every_kind_of_value_can_come_from_the_environment(tmp_path: Path) -> None:
    env = {
        "P2PQ_NODE_NAME": "7",
        "P2PQ_NODE_PEERS": "10.0.0.1:9476, host:2,",
        "P2PQ_NODE_MDNS": "no",
        "P2PQ_NODE_ACCEPT": "TRUE",
        "P2PQ_NODE_LABELS": "pool = rack,disk=ssd",
        "P2PQ_SCHEDULE_AHEAD_S": "0.5",
        "P2PQ_SCHEDULE_FAIRNESS": "uniform",
        "P2PQ_LOG_JSON": "1",
    }
    settings = load(tmp_path, env).settings
    assert settings.node == NodeSettings(
        name="7", peers=("10.0.0.1:9476", "host:2"), mdns=False, labels={"pool": "rack", "disk": "ssd"}
    )
    assert (settings.schedule.ahead_s, settings.schedule.fairness, settings.log.json) == (0.5, "uniform", True)


def test_every_setting_has_a_variable(tmp_path: Path) -> None:
    keys = [entry.key for entry in load(tmp_path, {}).entries]
    names = [variable(key) for key in keys]
    assert len(set(names)) == len(names)
    for key, name in zip(keys, names, strict=True):
        try:
            value, where = origin(tmp_path, key, {name: "1"}, {})
        except ConfigError as error:
            assert name in str(error) or "schedule." in str(error)  # noqa: PT017  "1" is not of every type
        else:
            assert (where, value) != ("default", None)


def test_other_variables_are_none_of_our_business(tmp_path: Path) -> None:
    env = {"P2PQ_HOME": "x", "P2PQ_NODE": "n", "P2PQ_TASK": "1", "P2PQ_ALLOW_ROOT": "1", "NODE_SLOTS": "x"}
    assert load(tmp_path, env).settings == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[node]\nnam = 'x'", "unknown setting node.nam, did you mean `node.name`? (HOME/config.toml)"),
        ("[nod]\n", "unknown setting nod, did you mean `node`? (HOME/config.toml)"),
        ("zzz = 1\n", "unknown setting zzz (HOME/config.toml)"),
        (
            "[node]\nslots = 'many'",
            'node.slots is the text "many"; write a whole number from 0 to 4096, without quotes (HOME/config.toml)',
        ),
        ("[node]\nslots = -1", "node.slots is -1; write a whole number from 0 to 4096 (HOME/config.toml)"),
        ("node = 3", "node is 3; write [node] in brackets, and its settings below (HOME/config.toml)"),
        ("config_version = 2", "config_version is 2; write 1 (HOME/config.toml)"),
        ("[node.labels]\n'a b' = 'c'", 'a name in node.labels is the text "a b"; write text in quotes: 1 to 64'),
        ("[node\n", "HOME/config.toml: not TOML: Expected ']' at the end of a table declaration (at line 1, column 6)"),
        ("[[peer]]\nmash = 'x'", "unknown setting peer[0].mash, did you mean `peer[0].mesh`? (HOME/config.toml)"),
        ("[[pear]]\nmesh = 'x'", "unknown setting pear, did you mean `peer`? (HOME/config.toml)"),
        (
            "[[peer]]\naccept = true",
            "peer[0].mesh is missing; write the other mesh's whole id, 52 characters in quotes",
        ),
        ("[peer]\nmesh = 'x'", "peer is a table; write [[peer]] in double brackets, once for each other mesh"),
        ("[[peer]]\nmesh = 'bee'", 'peer[0].mesh is the text "bee"; write the other mesh\'s whole id'),
        (f"[[peer]]\nmesh = '{'x' * 52}'", "which is no id; write the other mesh's whole id"),
        (
            f"[[peer]]\nmesh = '{MESH}'\n" * 2,
            "peer[1].mesh names the same mesh as peer[0].mesh; write all that holds for it under one [[peer]] (HOME/config.toml)",
        ),
        ("[schedule]\nlease_s = 5", "schedule.lease_s (5) must be at least three times schedule.heartbeat_s (15)"),
        ("[schedule]\nlease_s = 5", "or one lost message ends a lease (HOME/config.toml)"),
        (
            "[policy]\nmode = 'idel'",
            'policy.mode is "idel", neither always, idle, night nor screensaver, and no rule: "idel"',
        ),
        ("[policy]\nmode = 'load < 1 and on'", "programs, by and, or, not (HOME/config.toml)"),
        ("[policy]\ncheckpoint_signal = 9", "write one like TERM or USR1 (HOME/config.toml)"),
        (
            "[policy]\ncheckpoint_signal = 1.5",
            'policy.checkpoint_signal is 1.5; write a signal\'s name in quotes, as "TERM" or "USR1", or its number',
        ),
        ("[policy]\nstart = 'noon'", 'policy.start is the text "noon"; write a time of day in quotes, as "07:30"'),
    ],
)
def test_a_mistake_in_the_file_names_file_key_and_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {})
    assert message in str(caught.value).replace(str(tmp_path), "HOME")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"P2PQ_NODE_SLOT": "3"}, "unknown setting P2PQ_NODE_SLOT, did you mean `P2PQ_NODE_SLOTS`? (environment)"),
        (
            {"P2PQ_NODE_SLOTS": "many"},
            'P2PQ_NODE_SLOTS is the text "many"; write a whole number from 0 to 4096 (environment)',
        ),
        ({"P2PQ_NODE_MDNS": "maybe"}, 'P2PQ_NODE_MDNS is the text "maybe"; write true or false (environment)'),
        ({"P2PQ_NODE_LABELS": "pool"}, 'P2PQ_NODE_LABELS is "pool"; write k=v,k=v (environment)'),
        ({"P2PQ_SCHEDULE_HEARTBEAT_S": "40"}, "one lost message ends a lease (P2PQ_SCHEDULE_HEARTBEAT_S)"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path, env: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, env)
    assert message in str(caught.value)


def test_a_mistake_in_an_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting node\.nam, did you mean `node\.name`\? \(option\)"):
        load(tmp_path, {}, {"node.nam": "x"})
    with pytest.raises(ConfigError, match=r"node\.slots is the text .*\(option\)"):
        load(tmp_path, {}, {"node.slots": "3"})


def test_a_load_probe_that_nobody_would_ask_is_refused_where_it_is_an_option(tmp_path: Path) -> None:
    given = {"policy.load_probe": "echo 1"}
    with pytest.raises(ConfigError, match=r'"always" does not, "idle" does \(option\)'):
        load(tmp_path, {}, given)
    for mode in ("idle", "load < 0.5"):
        loaded = load(tmp_path, {"P2PQ_POLICY_MODE": mode}, given)
        assert loaded.settings.policy.load_probe == "echo 1"
    assert load(tmp_path, {"P2PQ_POLICY_LOAD_PROBE": "echo 1"}).settings.policy.mode == "always"


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})
    path.rmdir()
    path.write_bytes(b"[node]\nname = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load(tmp_path, {})
    path.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ConfigError, match="far too long"):
        load(tmp_path, {})
    path.write_text("a = " + "[" * 5000)
    with pytest.raises(ConfigError, match="not TOML"):
        load(tmp_path, {})


@pytest.mark.parametrize("name", ["workstation", "lab", "server"])
def test_the_examples_load(tmp_path: Path, name: str) -> None:
    write(tmp_path, (CONFIGS / f"{name}.toml").read_text())
    assert load(tmp_path, {}).settings != Settings()
