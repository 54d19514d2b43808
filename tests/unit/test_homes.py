"""Where a node lives."""

from pathlib import Path

import pytest

from p2pq.errors import ConfigError, RefusedError
from p2pq.homes import default_path, plain_path, refuse_root, socket_path


def test_the_default_home(tmp_path: Path) -> None:
    assert default_path({"P2PQ_HOME": str(tmp_path)}) == tmp_path
    assert default_path({}).name == "p2pq"


def test_a_short_home_has_its_socket_inside(tmp_path: Path) -> None:
    assert socket_path(Path("/h"), {}) == Path("/h/node.sock")
    long = Path("/" + "x" * 100)
    with pytest.raises(ConfigError, match="XDG_RUNTIME_DIR"):
        socket_path(long, {})
    short = socket_path(long, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert short.parent == tmp_path / "p2pq"
    assert short != socket_path(Path("/" + "y" * 100), {"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_home_has_one_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "home")
    assert plain_path(tmp_path / "link") == plain_path(tmp_path / "x" / ".." / "home") == (tmp_path / "home").resolve()


def test_root_must_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(RefusedError, match="P2PQ_ALLOW_ROOT=1"):
        refuse_root({})
    refuse_root({"P2PQ_ALLOW_ROOT": "1"})
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    refuse_root({})
