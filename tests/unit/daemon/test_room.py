"""Room on disks, compared with what is about to be unpacked."""

import os

import pytest

from p2pq.daemon import room
from p2pq.errors import DiskFullError


def test_what_others_are_unpacking_is_taken_into_account(tmp_path, monkeypatch):
    monkeypatch.setattr(room.files, "free_bytes", lambda _: 1000)
    with room.claim(tmp_path, 600, 100, "one"):
        with (
            pytest.raises(
                DiskFullError, match=r"^two would take 301 B, and there is room for 300 B, as 100 B are to stay free$"
            ),
            room.claim(tmp_path, 301, 100, "two"),
        ):
            pytest.fail("there is no room")
        with room.claim(tmp_path, 300, 100, "two"):
            pass
        with pytest.raises(DiskFullError, match="room for 0 B"), room.claim(tmp_path, 1, 500, "three"):
            pytest.fail("there is no room")
    with pytest.raises(ZeroDivisionError), room.claim(tmp_path, 900, 100, "one"):
        _ = 1 // 0
    with room.claim(tmp_path, 900, 100, "one"):
        pass
    assert not +room._claimed


def test_where_there_is_no_folder_there_is_no_room(tmp_path):
    with pytest.raises(OSError, match="No such file"), room.claim(tmp_path / "gone", 1, 0, "it"):
        pytest.fail("there is no folder")


@pytest.mark.parametrize("total", [10 << 20, 1 << 40])
def test_the_reserve_is_a_part_of_the_disk_or_more(tmp_path, monkeypatch, total):
    found = os.statvfs(tmp_path)
    disk = os.statvfs_result((4096, 4096, total // 4096, *found[3:]))
    monkeypatch.setattr(room.os, "statvfs", lambda _: disk)
    part = total // 4096 * 4096 // room.RESERVE_SHARE
    assert room.reserve(tmp_path, 1 << 20) == max(1 << 20, part)
    assert room.delivery_reserve(tmp_path) == min(room.DELIVERY_RESERVE_BYTES, part)


def test_a_disk_is_nearly_full_until_there_is_a_margin(tmp_path, monkeypatch):
    free = room.FREE_BYTES_MIN - 1
    monkeypatch.setattr(room.files, "free_bytes", lambda _: free)
    assert room.nearly_full(tmp_path, was=False) == "its disk is nearly full: less than 1 GiB is free"
    free += 1
    assert room.nearly_full(tmp_path, was=True)
    assert not room.nearly_full(tmp_path, was=False)
    free += room.MARGIN_BYTES
    assert not room.nearly_full(tmp_path, was=True)
