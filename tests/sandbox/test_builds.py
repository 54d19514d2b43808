"""Builds of environments: what packages can be had, and what the code of a hostile one cannot do while it is built."""

import asyncio
import functools
import hashlib
import http.server
import os
import shutil
import socket
import threading
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from p2pq.daemon import indexes
from p2pq.daemon.building import Bring, Builder
from p2pq.daemon.environments import find_uv
from p2pq.daemon.requirements import Wanted
from p2pq.daemon.runners import RunnerPool
from p2pq.errors import BuildError
from p2pq.model.config import EnvironmentSettings
from tests import packagekit

pytestmark = [pytest.mark.sandbox, pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")]

PROBE = """
import os, socket, sys
out = []
def attempt(what, act):
    try:
        act()
        out.append("ESCAPED " + what)
    except Exception:
        pass
def write(path):
    with open(path, "a") as file:
        file.write("x")
for path in {hidden!r}:
    attempt("read " + path, lambda: os.listdir(path) if os.path.isdir(path) else open(path).read())
for path in {outside!r}:
    attempt("write " + path, lambda: write(os.path.join(path, "hostile")))
def unix(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
def tcp(host, port):
    socket.create_connection((host, port), 2).close()
attempt("socket", lambda: unix({socket!r}))
attempt("abstract", lambda: unix(chr(0) + {abstract!r}))
attempt("tcp", lambda: tcp("127.0.0.1", {port}))
def proxied(host, port):
    place = os.environ["HTTPS_PROXY"].rpartition(":")[2]
    with socket.create_connection(("127.0.0.1", int(place)), 5) as s:
        s.sendall(f"CONNECT {{host}}:{{port}} HTTP/1.1\\r\\n\\r\\n".encode())
        if b" 200 " not in s.recv(100):
            raise OSError("refused")
attempt("proxy", lambda: proxied("127.0.0.1", {port}))
proxied("127.0.0.1", {allowed})
sys.stderr.write("\\n".join(out) + "\\nPROBED\\n")
sys.exit(3)
"""


class Bench:
    def __init__(self, path: Path, pool: RunnerPool) -> None:
        self.path = path
        self.packages = path / "packages"
        self.packages.mkdir()
        self.wheels = path / "wheels"
        self.wheels.mkdir()
        self.built = path / "built"
        self.built.mkdir()
        self.pool = pool
        self.hosts: tuple[str, ...] = ()
        self.index = "none"
        self.environ: dict[str, str] = {}

    async def build(self, *lines: str, memory_mb: int = 512, bring: Bring | None = None, **settings: object) -> int:
        """Build an environment called ``env`` of what the folder of packages has, or of what is brought."""
        kept = EnvironmentSettings(index=self.index, find_links=(str(self.packages),), hosts=self.hosts, **settings)  # type: ignore[arg-type]
        index = indexes.find(
            kept, {"HOME": "/nowhere", "PIP_CONFIG_FILE": "/dev/null"} | self.environ, homes=[], prefix=Path("/nowhere")
        )
        uv = find_uv()
        assert uv is not None
        builder = Builder(
            pool=self.pool,
            python=self.pool.python,
            index=index,
            uv=uv,
            settings=kept,
            memory_mb=memory_mb,
            wheels=self.wheels,
        )
        return await builder.build(Wanted("requirements.txt", lines), self.built / "env", self.path / "s", bring=bring)


@pytest.fixture
def bench(tmp_path, pool):
    return Bench(tmp_path, pool)


def processes_with(mark: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "cmdline").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
    return found


async def test_wheels_and_what_they_need(bench):
    packagekit.wheel(bench.packages, "greeting", "import inner\n", requires=("inner>=1",))
    packagekit.wheel(bench.packages, "inner", version="2.0")
    size = await bench.build("greeting")
    site = next((bench.built / "env/env/lib").glob("python3*/site-packages"))
    assert {"greeting.py", "inner.py"} <= {path.name for path in site.iterdir()}
    assert {path.name.partition(".")[0] for path in (site / "__pycache__").iterdir()} >= {"greeting", "inner"}
    assert size > 0
    assert [path.name for path in bench.built.iterdir()] == ["env"]
    assert list(bench.wheels.iterdir()), "kept for the next build"


async def test_sources_are_built_apart_from_what_others_use(bench):
    packagekit.source(bench.packages, "made", "import os\nopen(os.path.expanduser('~/cache/poison'), 'w')", "X = 1")
    before = os.environ.copy()
    await bench.build("made")
    assert next((bench.built / "env/env/lib").glob("python3*/site-packages/made.py")).read_text() == "X = 1"
    assert not list(bench.wheels.rglob("poison"))
    assert not list(bench.wheels.rglob("*.whl"))
    assert dict(os.environ) == before


async def test_what_is_brought_is_taken_by_its_hash_and_nothing_else_is(bench):
    wheel = packagekit.wheel(bench.path / "brought", "greeting", "import inner\n", requires=("inner>=1",))
    line = f"greeting==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    packagekit.wheel(bench.packages, "inner")
    packagekit.wheel(bench.packages, "greeting", "evil = 1\n")

    def bring(folder):
        shutil.copytree(wheel.parent, folder)

    await bench.build(line, bring=bring)
    site = next((bench.built / "env/env/lib").glob("python3*/site-packages"))
    assert (site / "greeting.py").read_text() == "import inner\n"
    assert not (site / "inner.py").exists(), "it is in the index only"
    assert list(bench.wheels.iterdir()) == []
    shutil.rmtree(bench.built / "env")
    packagekit.wheel(wheel.parent, "greeting", "evil = 1\n")
    with pytest.raises(BuildError, match=r"Hash mismatch for `greeting==1\.0`"):
        await bench.build(line, bring=bring)


class Upstream(http.server.SimpleHTTPRequestHandler):
    """A proxy that has the pages of an index, which nobody else has."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self):
        self.asked.append((self.path, self.headers["Proxy-Authorization"]))
        self.path = urlsplit(self.path).path
        super().do_GET()

    def log_message(self, *_):
        pass


async def test_an_index_behind_a_proxy_of_the_nodes_owner(bench, monkeypatch):
    monkeypatch.setattr(Upstream, "asked", [])
    packagekit.wheel(bench.path / "pages/simple/greeting", "greeting", "X = 1\n")
    (bench.path / "pages/simple/greeting/index.html").write_text(
        '<!DOCTYPE html><a href="greeting-1.0-py3-none-any.whl">greeting-1.0-py3-none-any.whl</a>'
    )
    serve = functools.partial(Upstream, directory=str(bench.path / "pages"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        bench.environ = {"http_proxy": f"http://me:secret@127.0.0.1:{server.server_port}"}
        bench.index = "http://index.invalid/simple"
        await bench.build("greeting")
        server.shutdown()
    site = next((bench.built / "env/env/lib").glob("python3*/site-packages"))
    assert (site / "greeting.py").read_text() == "X = 1\n"
    assert {url.partition("/simple/")[0] for url, _ in Upstream.asked} == {"http://index.invalid:80"}
    assert {said for _, said in Upstream.asked} == {"Basic bWU6c2VjcmV0"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("missing-thing",), "missing-thing was not found in the provided package locations"),
        (("inner>3",), r"only inner==2.0 is available.* inner>3"),
        (("inner<2", "inner>2"), "inner<2"),
        (("broken",), r"broken.*boom of the build"),
    ],
)
async def test_a_failure_says_which_package_and_why(bench, lines, said):
    packagekit.wheel(bench.packages, "inner", version="2.0")
    packagekit.source(bench.packages, "broken", "raise SystemExit('boom of the build')")
    with pytest.raises(BuildError, match=said) as caught:
        await bench.build(*lines)
    assert str(caught.value).startswith("environment of requirements.txt: ")
    assert len(str(caught.value)) < 480
    assert "\n" not in str(caught.value)
    assert list(bench.built.iterdir()) == []


async def test_hostile_code_of_a_package_gets_at_nothing(bench, tmp_path):
    secret = tmp_path / "home" / "identity.key"
    secret.parent.mkdir(exist_ok=True)
    secret.write_text("secret")
    own = [str(Path.home() / name) for name in (".ssh", ".bashrc", ".profile", ".config")]
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.create_server(("127.0.0.1", 0)) as allowed,
        socket.socket(socket.AF_UNIX) as api,
        socket.socket(socket.AF_UNIX) as nameless,
    ):
        api.bind(str(tmp_path / "node.sock"))
        api.listen()
        nameless.bind("\0p2pq-test-build")
        nameless.listen()
        bench.hosts = (f"127.0.0.1:{allowed.getsockname()[1]}",)
        payload = PROBE.format(
            hidden=[*own, str(secret), str(bench.built), "/etc/shadow", "/run", "/p2pq-wheels"],
            outside=["/", "/usr", "/etc", "/dev", "/p2pq-index/0", str(tmp_path)],
            socket=str(tmp_path / "node.sock"),
            abstract="p2pq-test-build",
            port=other.getsockname()[1],
            allowed=allowed.getsockname()[1],
        )
        packagekit.source(bench.packages, "hostile", payload)
        with pytest.raises(BuildError) as caught:
            await bench.build("hostile")
    assert "PROBED" in str(caught.value), "it got to its end"
    assert "ESCAPED" not in str(caught.value)
    assert "it asked for 127.0.0.1: not among the hosts" in str(caught.value)


async def test_hostile_code_does_not_outlive_its_build(bench):
    mark = "p2pq-outliving-build"
    payload = f"""
import os, subprocess, sys
code = "import time; time.sleep(3600) # {mark}"
quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **quiet)
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 100)
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", code])
    os._exit(0)
"""
    packagekit.source(bench.packages, "hostile", payload, "X = 1")
    await bench.build("hostile")
    assert processes_with(mark) == []
    assert (bench.built / "env").exists()


async def test_hostile_code_does_not_outlive_a_build_that_is_given_up(bench):
    mark = "p2pq-endless-build"
    payload = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; time.sleep(3600) # {mark}"])
"""
    packagekit.source(bench.packages, "hostile", payload)
    building = asyncio.ensure_future(bench.build("hostile"))  # noqa: TID251
    while not await asyncio.to_thread(processes_with, mark):  # noqa: ASYNC110  nobody would tell
        await asyncio.sleep(0.05)
    building.cancel()
    await asyncio.wait([building])
    assert processes_with(mark) == []
    assert list(bench.built.iterdir()) == []


FILL = """
import os
while True:
    with open(os.path.join(os.environ["TMPDIR"], os.urandom(8).hex()), "wb") as file:
        file.write(bytes(1 << 20))
"""
EAT = "held = []\nwhile True:\n    held.append(bytearray(b'x' * (1 << 20)))\n"
FORK = """
import os, time
for _ in range(1000):  # not a bomb, which would take the other tests' time
    try:
        if os.fork() == 0:
            break
    except OSError:
        break
time.sleep(3600)
"""


@pytest.mark.parametrize(
    ("payload", "settings", "said"),
    [
        (FILL, {"disk_mb": 64}, "64 MiB on disk"),
        (EAT, {"memory_mb": 200}, "of memory"),
        ("import time\ntime.sleep(3600)", {"time_s": 3}, "time|3 s"),
        (FORK, {"time_s": 10}, "processes|ran longer|memory"),
    ],
    ids=["disk", "memory", "time", "processes"],
)
async def test_hostile_code_is_ended_at_its_limits(bench, payload, settings, said):
    packagekit.source(bench.packages, "hostile", payload)
    with pytest.raises(BuildError, match=said):
        await bench.build("hostile", **settings)
    assert list(bench.built.iterdir()) == []


async def test_what_stands_in_the_place_of_an_environment_is_not_taken(bench):
    payload = "import os, shutil\nshutil.rmtree('/job/env')\nos.symlink('/root', '/job/env')"
    packagekit.source(bench.packages, "hostile", payload)
    with pytest.raises(BuildError):
        await bench.build("hostile")
    assert list(bench.built.iterdir()) == []
