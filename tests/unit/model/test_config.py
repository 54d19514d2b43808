"""Settings: limits, unknown keys, and relations between them."""

import msgspec
import pytest

from p2pq.errors import ConfigError
from p2pq.model.config import NodeSettings, ScheduleSettings, Settings, check
from p2pq.model.ids import to_text


def load(**sections: object) -> Settings:
    return msgspec.convert(sections, Settings)


def test_nothing_given_is_the_defaults_and_they_agree_with_each_other():
    assert load() == Settings()
    check(Settings())


def test_what_is_given_replaces_only_that():
    settings = load(node={"slots": 3, "labels": {"room": "2.14"}, "peers": ["10.0.0.1:9476"]})
    assert settings == Settings(node=NodeSettings(slots=3, labels={"room": "2.14"}, peers=("10.0.0.1:9476",)))


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"nodes": {}}, "Object contains unknown field `nodes`"),
        ({"node": {"slot": 3}}, "Object contains unknown field `slot` - at `$.node`"),
        ({"node": {"slots": -1}}, "Expected `int` >= 0 - at `$.node.slots`"),
        ({"node": {"slots": "two"}}, "Expected `int | null`, got `str` - at `$.node.slots`"),
        ({"node": {"labels": {"a b": "c"}}}, "at `key` in `$.node.labels`"),
        ({"node": {"peers": ["10.0.0.1:1"] * 65}}, "Expected `array` of length <= 64 - at `$.node.peers`"),
        ({"runner": {"grace_s": 0}}, "Expected `float` > 0.0 - at `$.runner.grace_s`"),
        ({"store": {"keep_days": 0}}, "Expected `int` >= 1 - at `$.store.keep_days`"),
        ({"schedule": {"fairness": "none"}}, "Invalid enum value 'none' - at `$.schedule.fairness`"),
        ({"config_version": 2}, "Invalid enum value 2 - at `$.config_version`"),
    ],
)
def test_a_wrong_setting_is_named(sections, said):
    with pytest.raises(msgspec.ValidationError) as caught:
        load(**sections)
    assert said in str(caught.value)


@pytest.mark.parametrize("signal", ["TERM", "SIGUSR1", "USR2", "XCPU", 1, 10, 64, "10"])
def test_a_checkpoint_is_asked_for_by_any_signal_that_can_be_caught(signal):
    check(load(policy={"checkpoint_signal": signal}))


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            {"checkpoint_signal": "KILL"},
            "checkpoint_signal is KILL, on which no task can leave a checkpoint; write one like",
        ),
        ({"checkpoint_signal": "SIGSTOP"}, "checkpoint_signal is SIGSTOP, on which no task can"),
        ({"checkpoint_signal": 9}, "checkpoint_signal is 9, on which no task can"),
        ({"checkpoint_signal": 0}, "checkpoint_signal is 0; write a number from 1 to 64 or one of HUP, INT, "),
        ({"checkpoint_signal": 65}, "checkpoint_signal is 65; write a number from 1 to 64"),
        ({"checkpoint_signal": "TREM"}, "checkpoint_signal is TREM; write a number from 1 to 64"),
        ({"load_max": 0.6}, "policy.load_pause (0.5) must be at least policy.load_max (0.6)"),
        ({"start": "07:00"}, 'policy.start and policy.end are both "07:00"'),
    ],
)
def test_a_policy_makes_sense(policy, said):
    with pytest.raises(ConfigError) as refused:
        check(load(policy=policy))
    assert said in str(refused.value)


def test_hours_are_counted_from_midnight():
    settings = load(policy={"start": "23:59", "end": "00:01"}).policy
    assert (settings.from_minute, settings.to_minute) == (1439, 1)
    for hour in ("24:00", "7:00", "07:60", "0700"):
        with pytest.raises(msgspec.ValidationError):
            load(policy={"start": hour})


def test_a_lease_must_outlive_lost_heartbeats():
    check(Settings(schedule=ScheduleSettings(lease_s=30.0, heartbeat_s=10.0)))
    with pytest.raises(
        ConfigError, match=r"schedule\.lease_s \(29\) must be at least three times schedule\.heartbeat_s"
    ):
        check(Settings(schedule=ScheduleSettings(lease_s=29.0, heartbeat_s=10.0)))


# -- other meshes --------------------------------------------------------------------------------------------------------

MESH, OTHER = to_text(b"m" * 32), to_text(b"o" * 32)


def test_a_mesh_that_is_named_may_do_what_is_said_and_no_more():
    settings = load(peer=[{"mesh": MESH}, {"mesh": OTHER.upper(), "accept": True, "bridge": True, "offer": True}])
    check(settings)
    assert settings.welcome == {b"m" * 32: (), b"o" * 32: ("bridge", "submit", "work")}
    assert load(peer=[{"mesh": MESH, "offer": True}]).welcome == {b"m" * 32: ("work",)}
    assert Settings().welcome == {}


@pytest.mark.parametrize(
    ("meshes", "said"),
    [(["x" * 52], "which is no id"), ([MESH, MESH[:4] + "-" + MESH[4:]], "names the same mesh as")],
)
def test_meshes_are_named_by_their_ids_and_once(meshes, said):
    with pytest.raises(ConfigError, match=said):
        check(load(peer=[{"mesh": mesh} for mesh in meshes]))
