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
