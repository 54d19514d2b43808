"""The numbers of the local API are said once."""

from p2pq.client import framing
from p2pq.wire import control, local


def test_all_who_speak_it_have_the_same_numbers():
    assert (control.API_VERSION, control.FRAME_BYTES_MAX) == (local.API_VERSION, local.FRAME_BYTES_MAX)
    assert (framing.CONNECT_S, framing.LENGTH_BYTES) == (local.CONNECT_S, local.LENGTH_BYTES)
