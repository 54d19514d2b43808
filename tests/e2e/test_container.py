"""What the Dockerfile starts, started here as an ordinary user: there is no container engine in the tests."""

import json
import os
import pwd
import re
import select
import shutil
import signal
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READY_S = 20
END_S = 12


def entrypoint() -> list[str]:
    """Return the container's command line."""
    found = re.search(r"^ENTRYPOINT (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return json.loads(found[1])


def ordinary_user() -> str | None:
    """Return the user to run as, or None for the present one, which is ordinary itself."""
    return "nobody" if os.geteuid() == 0 else None


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a home that the ordinary user owns, below nothing that is closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="p2pq-e2e-", dir="/tmp"))
    user = ordinary_user()
    if user is not None:
        shutil.chown(folder, user)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def python(home) -> list[str]:
    """Give an interpreter with p2pq's dependencies that the ordinary user can run, as the start of an argv."""
    paths = [str(ROOT), *site.getsitepackages()]
    for candidate in (sys.executable, "/usr/bin/python3"):
        argv = ["env", f"PYTHONPATH={os.pathsep.join(paths)}", candidate]
        probe = subprocess.run(
            [*argv, "-c", "import p2pq.cli.main, aiohttp, nacl, sys; print('%d.%d' % sys.version_info[:2])"],
            user=ordinary_user(),
            cwd=home,
            env={"PATH": os.environ["PATH"], "HOME": str(home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if probe.returncode == 0:
            return argv
    pytest.skip("needs an ordinary user that can read the checkout and its environment")


def read_line(process: subprocess.Popen[str]) -> str:
    ready, _, _ = select.select([process.stdout], [], [], READY_S)
    assert ready, "nothing on standard output"
    return process.stdout.readline()


def test_entrypoint_serves_as_an_ordinary_user_and_ends_on_sigterm(home, python):
    command, *arguments = entrypoint()
    assert command == "p2pq"
    # What `docker run IMAGE ARG...` appends; the last one of an option counts.
    appended = ["--listen", "127.0.0.1:0", "--no-mdns", "--name", "boxed"]
    user = ordinary_user()
    node = subprocess.Popen(
        [*python, "-m", "p2pq", *arguments, *appended],
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
        cwd=home,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "P2PQ_HOME": str(home / "node")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        words = read_line(node).split()
        assert words[:2] == ["ready", "boxed"]
        assert re.fullmatch(r"127\.0\.0\.1:\d+", words[3])
        node.send_signal(signal.SIGTERM)
        _, stderr = node.communicate(timeout=END_S)
        assert node.returncode == 0, stderr
        assert "Traceback" not in stderr
    finally:
        if node.poll() is None:
            node.kill()
            node.communicate()
