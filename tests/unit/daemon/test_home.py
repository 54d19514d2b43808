import os
import stat
from pathlib import Path

import pytest

from p2pq.daemon.home import Home, read_private, write_private
from p2pq.errors import ConfigError, RefusedError

ROOT_OK = {"P2PQ_ALLOW_ROOT": "1"}


def make(path: Path) -> Home:
    return Home.open(path, environ=ROOT_OK)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_new_home_is_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        home = make(tmp_path / "a" / "home")
    finally:
        os.umask(old)
    assert mode(home.path) == 0o700
    assert {mode(p) for p in (home.mesh, home.blobs, home.scratch)} == {0o700}
    assert mode(home.api_token) == 0o600
    assert len(home.token()) == 32
    assert make(home.path).token() == home.token()


@pytest.mark.parametrize("name", [".", "mesh", "blobs", "scratch"])
def test_a_folder_open_to_others_is_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    home = make(tmp_path / "home")
    target = home.path / name
    target.chmod(0o750)
    with pytest.raises(ConfigError, match=f"chmod 700 {target}"):
        make(home.path)


@pytest.mark.parametrize("name", ["identity.key", "api.token", "store.sqlite", "mesh/root.key", "mesh/mesh.state"])
def test_a_secret_open_to_others_is_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    home = make(tmp_path / "home")
    file = home.path / name
    file.write_bytes(b"x" * 32)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match=f"chmod 600 {file}"):
        make(home.path)


def test_a_secret_that_is_a_link_is_refused(tmp_path: Path) -> None:
    home = make(tmp_path / "home")
    home.identity_key.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="not a regular file"):
        make(home.path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_private(home.identity_key)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a folder to another user")
def test_another_users_home_is_refused(tmp_path: Path) -> None:
    home = make(tmp_path / "home")
    os.chown(home.path, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to another user"):
        make(home.path)


def test_settings_may_be_readable_but_not_writable(tmp_path: Path) -> None:
    home = make(tmp_path / "home")
    home.config.write_text("")
    home.config.chmod(0o644)
    make(home.path)
    home.config.chmod(0o664)
    with pytest.raises(ConfigError, match="others may change it"):
        make(home.path)


def test_root_is_refused_unless_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(RefusedError, match="P2PQ_ALLOW_ROOT=1"):
        Home.open(tmp_path / "home", environ={})
    assert not (tmp_path / "home").exists()


def test_no_home_without_leave(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="p2pq node"):
        Home.open(tmp_path / "home", create=False, environ=ROOT_OK)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("x")
    with pytest.raises(Exception, match="home"):
        make(tmp_path / "home")


def test_one_node_per_home(tmp_path: Path) -> None:
    home = make(tmp_path / "home")
    assert not home.running()
    with home.lock():
        assert home.running()
        with pytest.raises(RefusedError, match=f"process {os.getpid()}"), make(home.path).lock():
            pass
        assert home.running()
    assert not home.running()
    with home.lock():
        pass


def test_secrets_that_were_being_written_when_a_node_died_are_swept(tmp_path: Path) -> None:
    home = make(tmp_path / "home")
    left_over = [
        home.path / ".identity.key.0a1b.new",
        home.mesh / ".mesh.state.0a1b.new",
        home.mesh / ".root-x.key.2.new",
    ]
    for path in left_over:
        write_private(path, b"secret")
    write_private(home.mesh_state, b"state")
    with home.lock():
        assert [path for path in left_over if path.exists()] == []
        assert home.mesh_state.exists()
        assert home.api_token.exists()


def test_the_sockets_folder_is_checked_too(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    runtime = tmp_path / "run"
    runtime.mkdir()
    home = Home.open(deep, environ=ROOT_OK | {"XDG_RUNTIME_DIR": str(runtime)})
    path = home.open_socket_folder()
    assert mode(path.parent) == 0o700
    path.parent.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        home.open_socket_folder()


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write_private(file, b"one")
    write_private(file, b"two")
    assert read_private(file) == b"two"
    assert mode(file) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]
    with pytest.raises(ConfigError, match="far too long"):
        read_private(file, size_max=2)


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    write_private(file, b"one")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(file, b"two")
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]
    assert file.read_bytes() == b"one"


def test_a_damaged_token_is_named(tmp_path: Path) -> None:
    home = make(tmp_path / "home")
    write_private(home.api_token, b"short")
    with pytest.raises(ConfigError, match="not a token"):
        home.token()
