"""Sessions that are kept behind others, on a folder that looks like /proc."""

from pathlib import Path

import pytest

from p2pq.daemon import autogroups


def test_a_kernel_says_whether_it_groups_by_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autogroups, "SWITCH", tmp_path / "switch")
    assert not autogroups.enabled()
    for text, expected in (("0\n", False), ("1\n", True)):
        (tmp_path / "switch").write_text(text)
        assert autogroups.enabled() is expected


def test_each_session_is_lowered_once_and_again_when_it_was_raised(tmp_path: Path) -> None:
    files = []
    for pid, nice in ((7, 0), (9, 19), (11, 5)):
        (tmp_path / str(pid)).mkdir()
        files.append(tmp_path / str(pid) / "autogroup")
        files[-1].write_text(f"/autogroup-{pid} nice {nice}\n")
    autogroups.lower([7, 8, 9, 11], proc=str(tmp_path))  # 8 has ended
    # The kernel's own file does not keep what it is written; this one shows it.
    assert [file.read_text().splitlines()[1:] for file in files] == [["19"], [], ["19"]]
