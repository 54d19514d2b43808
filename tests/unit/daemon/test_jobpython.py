"""Which Python jobs run with, and which are refused."""

import json
import sys
from pathlib import Path

import pytest

from p2pq.daemon.jobpython import JobPython, python_features, resolve_python
from p2pq.errors import SandboxError


def fake(folder: Path, prefix: Path, base: Path | None = None, executable: Path | None = None) -> Path:
    """Write an interpreter that gives these answers about itself."""
    base = base or prefix
    answer = [str(executable or prefix / "bin" / "python"), *map(str, (prefix, base, prefix, base)), "3.12.1"]
    (prefix / "bin").mkdir(parents=True, exist_ok=True)
    (prefix / "bin" / "python").touch()
    path = folder / "fake-python"
    path.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    path.chmod(0o755)
    return path


def test_the_running_interpreter_is_the_default(tmp_path: Path) -> None:
    home = tmp_path / "home"
    own = resolve_python(None, user_home=home, p2pq_home=home / "p2pq")
    assert own.executable == Path(sys.executable)
    assert own.bin == Path(sys.executable).parent
    asked = resolve_python(Path(sys.executable), user_home=home, p2pq_home=home / "p2pq")
    assert asked == own


def test_features_are_the_importable_modules() -> None:
    own = JobPython(Path(sys.executable), (), "3")
    features = python_features(own)
    assert {"sys", "json", "msgspec"} <= features
    assert "no_such_module" not in features


def test_a_shim_leads_to_the_interpreter(tmp_path: Path) -> None:
    prefix = tmp_path / "home" / ".versions" / "3.12.1"
    shim = fake(tmp_path, prefix)
    found = resolve_python(shim, user_home=tmp_path / "home", p2pq_home=tmp_path / "p")
    assert found == JobPython(prefix / "bin" / "python", (prefix,), "3.12.1")


def test_inner_prefixes_are_bound_once_and_links_under_both_names(tmp_path: Path) -> None:
    base = tmp_path / "base"
    venv = base / "envs" / "x"
    current = tmp_path / "current"
    shim = fake(tmp_path, venv, base)
    current.symlink_to(base)
    assert resolve_python(shim, user_home=Path("/h"), p2pq_home=Path("/q")).prefixes == (base,)
    shim = fake(tmp_path, venv, current)
    found = resolve_python(shim, user_home=Path("/h"), p2pq_home=Path("/q")).prefixes
    assert set(found) == {base, current}


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("home", "holds the home folder"),
        (".", "holds the home folder"),
        ("p2pq", "holds P2PQ_HOME"),
        ("p2pq/env", "lies in P2PQ_HOME"),
    ],
)
def test_a_prefix_that_shows_a_home_is_refused(tmp_path: Path, prefix: str, words: str, linked: bool) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "p2pq").mkdir()
    (tmp_path / "other").symlink_to(tmp_path)
    shim = fake(tmp_path, tmp_path / prefix)
    base = tmp_path / "other" if linked else tmp_path
    with pytest.raises(SandboxError, match=words):
        resolve_python(shim, user_home=base / "home", p2pq_home=base / "p2pq")


@pytest.mark.parametrize("prefix", ["/", "/etc", "/proc/self", "/dev"])
def test_a_prefix_that_the_sandbox_provides_itself_is_refused(tmp_path: Path, prefix: str) -> None:
    shim = fake(tmp_path, tmp_path / "ok")
    shim.write_text(shim.read_text().replace(f'"{tmp_path / "ok"}"', f'"{prefix}"'))
    with pytest.raises(SandboxError, match=r"cannot be bound|holds"):
        resolve_python(shim, user_home=Path("/nowhere/h"), p2pq_home=Path("/nowhere/q"))


def test_an_interpreter_outside_its_prefix_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    prefix = tmp_path / "prefix"
    shim = fake(tmp_path, prefix)
    (prefix / "bin" / "python").unlink()
    (prefix / "bin" / "python").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SandboxError, match="leads through"):
        resolve_python(shim, user_home=Path("/h"), p2pq_home=Path("/q"))
    (prefix / "bin" / "python").unlink()
    (prefix / "bin" / "python").symlink_to("python")
    with pytest.raises(SandboxError, match="loop"):
        resolve_python(shim, user_home=Path("/h"), p2pq_home=Path("/q"))


@pytest.mark.parametrize("says", ["echo nonsense", "echo '{}'", "exit 1", "echo '[1]'"])
def test_what_is_no_python_is_refused(tmp_path: Path, says: str) -> None:
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    with pytest.raises(SandboxError, match="Python interpreter"):
        resolve_python(path, user_home=Path("/h"), p2pq_home=Path("/q"))
    with pytest.raises(SandboxError, match="does not run"):
        resolve_python(tmp_path / "missing", user_home=Path("/h"), p2pq_home=Path("/q"))
