"""Jobs whose packages their nodes do not have: from a folder of packages, and a node that has none of them."""

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import lab
import pytest

from tests import packagekit
from tests.covers import covers

pytestmark = pytest.mark.sandbox

EXAMPLE = Path(__file__).parents[2] / "examples/brian2-sweep"
MAIN = "import greeting, sys\nprint(greeting.words(), sys.prefix)\n"
SCRIPT = '# /// script\n# dependencies = ["greeting"]\n# ///\n' + MAIN


@pytest.fixture
def packaged(home, tmp_path):
    """Give a host that has a folder of packages for its only index."""
    packages = tmp_path / "packages"
    packagekit.wheel(packages, "greeting", "import inner\ndef words(): return inner.WORDS\n", requires=("inner>=1",))
    packagekit.wheel(packages, "inner", "WORDS = 'hello from a wheel'\n")
    home.settings |= {"P2PQ_ENVIRONMENTS_INDEX": "none", "P2PQ_ENVIRONMENTS_FIND_LINKS": str(packages)}
    home.start("--name", "home", "--slots", "10")
    lab.until(lambda: home.json("status")["sandbox"] == "strict", "the sandbox is tested")
    return home


def folder(path: Path, **files: str) -> str:
    path.mkdir()
    for name, text in files.items():
        (path / name.replace("_", ".")).write_text(text)
    return str(path)


def test_a_job_has_the_packages_that_its_folder_asks_for(packaged, tmp_path):
    plain = folder(tmp_path / "plain", main_py=MAIN, requirements_txt="# ours\ngreeting==1.0  # the best\n")
    job = packaged.ok("submit", plain, "--detach", "--array", "0-3").strip()
    packaged.ok("wait", job)
    said = packaged.ok("logs", job)
    assert said.count("hello from a wheel /p2pq-env") == 4
    script = folder(tmp_path / "script", main_py=SCRIPT)
    job = packaged.ok("submit", script, "--detach").strip()
    packaged.ok("wait", job)
    assert "hello from a wheel /p2pq-env" in packaged.ok("logs", job)
    disk = packaged.json("status")["disk"]
    assert disk["environments"] == 2
    assert disk["environments_bytes"] > 0


PROJECT = """\
[project]
name = "mysim"
version = "0.1"
requires-python = ">=3.11"
dependencies = ["greeting"]
"""
LOCK = """\
version = 1
revision = 2
requires-python = ">=3.11"

[[package]]
name = "greeting"
version = "1.0"
source = {{ registry = "https://pypi.org/simple" }}
dependencies = [{{ name = "inner" }}]
wheels = [{{ url = "https://files.pythonhosted.org/packages/greeting-1.0-py3-none-any.whl", hash = "sha256:{greeting}" }}]

[[package]]
name = "inner"
version = "1.0"
source = {{ registry = "https://pypi.org/simple" }}
wheels = [{{ url = "https://files.pythonhosted.org/packages/inner-1.0-py3-none-any.whl", hash = "sha256:{inner}" }}]

[[package]]
name = "mysim"
version = "0.1"
source = {{ virtual = "." }}
dependencies = [{{ name = "greeting" }}]

[package.metadata]
requires-dist = [{{ name = "greeting" }}]
"""


def locked(packages: Path, **hashes: str) -> dict[str, str]:
    """Return the files of a project that is locked to the packages in a folder."""
    there = {
        path.name.split("-")[0]: hashlib.sha256(path.read_bytes()).hexdigest() for path in packages.glob("*-1.0-*")
    }
    return {"main_py": MAIN, "pyproject_toml": PROJECT, "uv_lock": LOCK.format(**{**there, **hashes})}


def test_a_locked_project_has_what_is_in_its_lock_and_nothing_else(packaged, tmp_path):
    packages = tmp_path / "packages"
    files = locked(packages)
    packagekit.wheel(packages, "inner", "WORDS = 'too new'\n", version="2.0")
    plain = folder(tmp_path / "plain", **files)
    job = packaged.ok("submit", plain, "--detach").strip()
    packaged.ok("wait", job)
    assert "hello from a wheel /p2pq-env" in packaged.ok("logs", job)
    other = folder(tmp_path / "other", **locked(packages, inner="0" * 64))
    job = packaged.ok("submit", other, "--detach").strip()
    lab.until(
        lambda: "Hash mismatch for `inner==1.0`" in packaged.run("why", f"{job}.0").stdout, "it is not what was locked"
    )
    packaged.ok("cancel", job)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_brian2_runs_where_python_has_none_of_it(home, tmp_path):
    assert importlib.util.find_spec("brian2") is None
    home.start("--name", "home", "--slots", "2")
    lab.until(lambda: home.json("status")["sandbox"] == "strict", "the sandbox is tested")
    script = (EXAMPLE / "main.py").read_text()
    wanted = (EXAMPLE / "requirements.txt").read_text()
    by_file = folder(tmp_path / "by-file", main_py=script, requirements_txt=wanted)
    block = f"# /// script\n# dependencies = {json.dumps(wanted.split())}\n# ///\n"
    by_block = folder(tmp_path / "by-block", main_py=block + script)
    for each in (by_file, by_block):
        home.ok("submit", each, "--quiet", "--sweep", "rate=8,12", timeout=500)
        rates = [json.loads((Path(each) / f"results/{task}/rate.json").read_text()) for task in range(2)]
        assert rates[0] != rates[1]
    assert home.json("status")["disk"]["environments"] == 1, "who asks for the same has the same"


def test_ten_that_ask_for_the_same_at_once_build_it_once(packaged, tmp_path):
    jobs = []
    for number in range(5):
        asks = folder(tmp_path / f"job{number}", main_py=MAIN, requirements_txt=f"# {number}\ngreeting\n")
        jobs.append(packaged.ok("submit", asks, "--detach", "--array", "0-1").strip())
    packaged.ok("wait", *jobs)
    assert all(packaged.ok("logs", job).count("hello from a wheel") == 2 for job in jobs)
    built = [line for line in (packaged.home / "node.log").read_text().splitlines() if "environment.built" in line]
    assert len(built) == 1
    assert packaged.json("status")["disk"]["environments"] == 1


@covers("submit --env")
def test_without_one_a_job_has_what_is_there(packaged, tmp_path):
    plain = folder(tmp_path / "plain", main_py="import greeting", requirements_txt="greeting")
    done = packaged.run("submit", plain, "--env", "none", "--retries", "0")
    assert done.returncode == 1
    assert "No module named 'greeting'" in packaged.ok("logs", packaged.json("jobs")[0]["job"], "--stderr")
    assert packaged.json("status")["disk"]["environments"] == 0


def test_what_cannot_be_had_is_said_wherever_people_look(packaged, tmp_path):
    plain = folder(tmp_path / "plain", main_py="", requirements_txt="greeting\nmissing-thing>2\n")
    job = packaged.ok("submit", plain, "--detach").strip()
    assert packaged.run("wait", job).returncode == 1, "given up, without eleven attempts"
    why = "environment of requirements.txt: No solution found when resolving dependencies: Because missing-thing was not found"
    said = [
        packaged.ok("why", f"{job}.0"),
        packaged.ok("show", f"{job}.0"),
        packaged.run("logs", f"{job}.0").stderr,
    ]
    assert [why in " ".join(each.split()) for each in said] == [True] * 3, said
    assert packaged.json("show", job)["attempts"] == 2


def test_what_no_node_builds_is_refused_at_once(packaged, tmp_path):
    plain = folder(tmp_path / "plain", main_py="", requirements_txt="greeting\n-e .\n")
    done = packaged.run("submit", plain)
    assert done.returncode == 2
    assert "requirements.txt line 2: -e is not supported" in done.stderr
    assert packaged.json("jobs") == []


def test_a_node_that_builds_none_says_so(home, tmp_path):
    home.settings |= {"P2PQ_ENVIRONMENTS_INDEX": "https://user:secret@index.example/simple"}
    home.start("--name", "home")
    lab.until(lambda: home.json("status")["sandbox"] == "strict", "the sandbox is tested")
    plain = folder(tmp_path / "plain", main_py="", requirements_txt="greeting")
    job = home.ok("submit", plain, "--detach").strip()
    assert "needs env=uv, which nobody has" in home.ok("why", job)
    assert "`--env none` runs the job" in home.ok("why", job)
    [finding] = [each for each in home.json("doctor") if each["check"] == "environments"]
    assert "takes a password" in finding["detail"]
    assert "secret" not in json.dumps(finding)


@pytest.fixture
def apart(packaged, tmp_path):
    """Give a host of the same mesh that reaches no index and has no packages."""
    with lab.hosts(tmp_path, ["far"]) as [far]:
        far.settings |= {"P2PQ_ENVIRONMENTS_INDEX": "none"}
        far.start("--name", "far", "--slots", "1")
        code = packaged.ok("invite").split()[0]
        far.ok("join", code, "--at", packaged.address, "--yes")
        lab.until(lambda: far.json("status")["sandbox"] == "strict", "the sandbox is tested")
        lab.until(lambda: any(peer["state"] == "up" for peer in packaged.json("peers")), "the two are linked")
        yield far


@covers("submit --bundle")
def test_packages_that_go_along_are_had_where_there_is_no_index(packaged, apart, tmp_path):
    plain = folder(tmp_path / "plain", main_py=MAIN, requirements_txt="greeting\n")
    done = packaged.run("submit", plain, "--bundle", "--where", "far", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "bundle: fetching 2 of 2 wheels" in done.stderr
    [job] = packaged.json("jobs")
    assert "hello from a wheel /p2pq-env" in packaged.ok("logs", job["job"])
    again = packaged.run("submit", plain, "--bundle", "--where", "far", "--quiet")
    assert again.returncode == 0, again.stderr
    assert "fetching" not in again.stderr, "nothing is asked of the index again"
    assert apart.json("status")["disk"]["environments"] == 1


@covers("submit --freeze")
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs binutils")
def test_a_program_runs_where_python_has_no_packages_and_nobody_builds_any(pair, tmp_path):
    alice, bob = pair
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True, timeout=60)
    assert bob.stop() == 0
    bob.settings |= {"P2PQ_RUNNER_PYTHON": str(bare / "bin/python"), "P2PQ_ENVIRONMENTS_INDEX": "none"}
    bob.start("--name", "bob")
    for host in pair:
        lab.until(lambda host=host: host.json("status")["sandbox"] == "strict", "the sandbox is tested")
    lab.until(lambda: any(peer["state"] == "up" for peer in alice.json("peers")), "bob is back")
    main = "import helper, sys\nprint(helper.plain(sys.argv[1]), getattr(sys, 'frozen', False), 'bare' in sys.prefix)\n"
    helper = "import text_unidecode\ndef plain(text): return text_unidecode.unidecode(text)\n"
    wanted = folder(tmp_path / "wanted", main_py=main, helper_py=helper, requirements_txt="text-unidecode==1.3\n")
    # What the node itself imports is not there either, so it is not that which the program runs with.
    asks = (
        "from importlib.util import find_spec as f\nimport sys\nprint(f('msgspec'), f('text_unidecode'), sys.prefix)\n"
    )
    lacks = alice.submit("--where", "bob", folder(tmp_path / "asks", main_py=asks))
    alice.ok("wait", lacks)
    assert alice.ok("logs", lacks).splitlines() == [f"None None {bare}"]
    done = alice.run("submit", wanted, "--freeze", "--where", "bob", "--quiet", "--", "gr\u00fcn", timeout=400)
    assert done.returncode == 0, done.stderr
    [job] = {each["job"] for each in alice.json("jobs")} - {lacks}
    assert alice.ok("logs", job).splitlines()[-1] == "grun True False"
    again = alice.run("submit", wanted, "--freeze", "--where", "bob", "--quiet", "--", "blau")
    assert again.returncode == 0, again.stderr
    assert "making one program" not in again.stderr
    assert bob.json("status")["disk"]["environments"] == 0


def test_what_cannot_go_along_is_said_at_once(packaged, tmp_path):
    packagekit.source(tmp_path / "packages", "made", "", "X = 1")
    plain = folder(tmp_path / "plain", main_py=MAIN, requirements_txt="made\n")
    assert "made==1.0 has no usable wheels" in packaged.fails(2, "submit", plain, "--bundle")
    bare = folder(tmp_path / "bare", main_py=MAIN)
    assert "the folder asks for no packages" in packaged.fails(2, "submit", bare, "--bundle")
    assert "`--env none` another" in packaged.fails(2, "submit", plain, "--bundle", "--env", "none")
    assert packaged.json("jobs") == []
