"""A setting is told over the local API as it is, whatever its type; the rest is checked with ``control``."""

import msgspec
import pytest

from p2pq.model.config import Settings
from p2pq.wire import control
from p2pq.wire.settingcontrol import SettingsList, SettingView

VALUES = [
    getattr(getattr(Settings(), section.name), field.name)
    for section in msgspec.structs.fields(Settings)
    if isinstance(section.default, msgspec.Struct)
    for field in msgspec.structs.fields(section.type)
]


@pytest.mark.parametrize("value", [*VALUES, 4, ("10.0.0.1:9476", "b:2"), {"room": "12"}], ids=repr)
def test_a_setting_arrives_as_it_was_sent(value):
    view = SettingView(key="node.x", value=value, origin="default")
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(view), type=control.Reply)
    assert back == view
    assert type(back.value) is type(value)


def test_asking_for_them_is_a_request():
    raw = msgspec.msgpack.encode(SettingsList())
    assert msgspec.msgpack.decode(raw, type=control.ControlRequest) == SettingsList()
