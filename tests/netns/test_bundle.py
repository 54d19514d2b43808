"""Packages that travel with a job, for a host whose index lies in a network that it is not plugged into."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import packagekit
from tests.e2e import lab
from tests.netns.lan import Host, Lan, into_one_mesh

MAIN = "import greeting, sys\nprint(greeting.words(), sys.prefix)\n"
PORT = "8011"


@contextlib.contextmanager
def index(shop: Host, folder: Path) -> Iterator[str]:
    """Serve packages on a host; yield the address of that index."""
    packagekit.wheel(
        folder / "simple/greeting",
        "greeting",
        "import inner\ndef words(): return inner.WORDS\n",
        requires=("inner>=1",),
    )
    packagekit.wheel(folder / "simple/inner", "inner", "WORDS = 'hello from a wheel'\n")
    argv = [
        "ip",
        "netns",
        "exec",
        shop.space,
        sys.executable,
        "-u",
        "-m",
        "http.server",
        PORT,
        "--directory",
        str(folder),
    ]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert "Serving HTTP" in lab.read_line(server.stdout, 30)
            yield f"http://{shop.ip}:{PORT}/simple"
        finally:
            server.kill()


@pytest.mark.slow
def test_a_bundle_brings_packages_to_a_host_that_reaches_no_index(lan: Lan, tmp_path: Path) -> None:
    anna, bert, shop = lan.add("anna", (0, 1)), lan.add("bert"), lan.add("shop", (1,))
    plain = lab.make_folder(tmp_path / "plain", MAIN, requirements__txt="greeting\n")
    with index(shop, tmp_path / "packages") as address:
        for host in (anna, bert):
            host.configure(f'[environments]\nindex = "{address}"\n')
        into_one_mesh([anna, bert])
        job = anna.detach("--where", "bert", str(plain))
        lab.until(
            lambda: f"{shop.ip} does not answer" in anna.run("why", job).stdout, "bert has no way to the index", 200
        )
        anna.ok("cancel", job)
        done = anna.run("submit", "--bundle", "--where", "bert", "--quiet", str(plain))
        assert done.returncode == 0, done.stderr
        assert "bundle: fetching 2 of 2 wheels" in done.stderr
        assert "hello from a wheel /p2pq-env" in anna.ok("logs", anna.json("jobs")[0]["job"])
        assert bert.json("status")["disk"]["environments"] == 1
        assert anna.json("status")["disk"]["environments"] == 0, "it ran nowhere else"
