"""The files around the code: Makefile, CI, container, service unit, and the scripts that make the environment."""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from p2pq.model.config import Settings

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    [*(ROOT / "tests").glob("*.sh"), ROOT / "examples" / "demo.sh", ROOT / "examples" / "shell" / "main.sh"]
)


def run(argv: list[str | Path], **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False, **more
    )


def test_make_has_three_targets_for_people():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets == ["help", "demo", "test", "check"]


def test_make_without_a_target_explains_itself():
    said = run(["make", "-s", "-C", ROOT]).stdout
    assert [line.split()[1] for line in said.splitlines()] == ["demo", "test", "check"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound_and_stop_at_errors(path):
    assert run(["sh", "-n", path]).stderr == ""
    text = path.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert "\nset -eu\n" in text
    assert os.access(path, os.X_OK)


def test_ci_is_sound_stops_at_errors_reads_nothing_and_ends():
    path = ROOT / ".ci" / "run"
    text = path.read_text()
    assert run(["bash", "-n", path]).stderr == ""
    assert "\nset -eu\n" in text
    assert "\nexec </dev/null\n" in text
    steps = [line.strip() for line in text.splitlines() if re.search(r"\bmake (check|test)\b", line)]
    limited = [step for step in steps if "timeout -k" in step]
    assert [step for step in steps if step not in limited and not step.startswith(("#", "echo"))] == []
    assert len(limited) == 3


def write_python(path: Path, version: str) -> None:
    """Write a stand-in for an interpreter that only knows its version."""
    path.write_text(f"#!/bin/sh\ncase $2 in *version_info\\[:2*) echo {version};; *) exit 1;; esac\n")
    path.chmod(0o755)


def test_an_old_python_is_named_with_the_way_out(tmp_path):
    write_python(tmp_path / "python", "3.9")
    done = run(["sh", ROOT / "tests" / "venv.sh", "run"], env={**os.environ, "PYTHON": str(tmp_path / "python")})
    assert done.returncode == 1
    assert done.stdout == ""
    assert "is Python 3.9; p2pq needs 3.11 or newer: make PYTHON=" in done.stderr


def test_a_missing_python_is_named_with_the_way_out():
    done = run(["sh", ROOT / "tests" / "venv.sh", "run"], env={**os.environ, "PYTHON": "/no/such/python"})
    assert done.returncode == 1
    assert "no Python called '/no/such/python'" in done.stderr


def instructions() -> list[tuple[str, str]]:
    """Return (instruction, rest) of the Dockerfile, continuation lines joined, comments left out."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def test_container_runs_a_node_as_an_ordinary_user_with_a_home_that_stays():
    steps = instructions()
    by_name = dict(steps)
    assert json.loads(by_name["ENTRYPOINT"])[:2] == ["p2pq", "node"]
    assert by_name["USER"] == "p2pq"
    assert [name for name, _ in steps].index("USER") < [name for name, _ in steps].index("ENTRYPOINT")
    home = by_name["ENV"].removeprefix("P2PQ_HOME=")
    assert json.loads(by_name["VOLUME"]) == [home]
    assert json.loads(by_name["ENTRYPOINT"])[-1].endswith(f":{by_name['EXPOSE']}")


def test_container_copies_what_the_build_context_lets_through():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for name, rest in instructions() if name == "COPY" for source in shlex.split(rest)[:-1]}
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_service_unit_delegates_and_ends_in_order():
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read(ROOT / "configs" / "p2pq.service")
    service = unit["Service"]
    assert service["ExecStart"].endswith("p2pq node")
    assert service["Delegate"] == "memory pids", "a group with a share of the processors would compete as a whole"
    assert int(service["TimeoutStopSec"]) > 10, "SIGTERM may take ten seconds"
    assert service["UMask"] == "0077"
    assert unit["Install"]["WantedBy"] == "default.target"


def test_the_package_names_its_command_licence_and_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"p2pq": "p2pq.cli.entry:main"}
    assert project["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert project["requires-python"] == ">=3.11"


FAKE_COMMAND = """#!/bin/sh
echo "$* root=$P2PQ_ALLOW_ROOT" >>"{log}"
echo "$P2PQ_HOME" >>"{homes}"
cp "$P2PQ_HOME/config.toml" "{log}.toml"
case $1 in submit)
    for folder; do :; done
    mkdir -p "$folder/results/0"
    echo '{{"points": 4, "inside": 3}}' >"$folder/results/0/pi.json"
    exit {code} ;;
esac
"""


@pytest.mark.parametrize("code", [0, 1])
def test_demo_shows_the_results_stops_its_node_and_leaves_nothing_else(tmp_path, code):
    """With a stand-in for p2pq, so that it shows what the script does and not what a node does."""
    for name in ("pi/main.py", "pi/mean.py", "demo.sh"):
        (tmp_path / "examples" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "examples" / name).write_text((ROOT / "examples" / name).read_text())
    binaries = tmp_path / "venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to(sys.executable)
    log, homes, scratch = tmp_path / "log", tmp_path / "homes", tmp_path / "scratch"
    scratch.mkdir()
    (binaries / "p2pq").write_text(FAKE_COMMAND.format(log=log, homes=homes, code=code))
    (binaries / "p2pq").chmod(0o755)

    done = run(["sh", tmp_path / "examples" / "demo.sh", tmp_path / "venv"], env={**os.environ, "TMPDIR": str(scratch)})

    assert done.returncode == code, done.stderr
    folder = tmp_path / "examples" / "pi"
    assert log.read_text().splitlines() == [
        "start root=1",
        f"submit --sweep seed=0,1,2,3,4,5,6,7 {folder} root=1",
        "stop root=1",
    ]
    if code == 0:
        assert "pi is about 3.000000 (1 tasks, 4 points)" in done.stdout
        assert done.stdout.splitlines()[-1] == f"The results lie in {folder}/results/ (one folder per task)"
    assert {Path(home).parent.parent for home in homes.read_text().split()} == {scratch}
    assert list(scratch.iterdir()) == [], "the temporary home goes"
    settings = msgspec.convert(tomllib.loads(Path(f"{log}.toml").read_text()), Settings)
    assert not settings.node.mdns
    assert settings.node.listen == "127.0.0.1:0"
