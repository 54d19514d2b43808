"""Jobs whose packages their nodes do not have: from a folder of packages, and a node that has none of them."""

import json
from pathlib import Path

import lab
import pytest

from tests import packagekit
from tests.covers import covers

pytestmark = pytest.mark.sandbox

MAIN = "import greeting, sys\nprint(greeting.words(), sys.prefix)\n"
SCRIPT = '# /// script\n# dependencies = ["greeting"]\n# ///\n' + MAIN


@pytest.fixture
def packaged(home, tmp_path):
    """Give a host that has a folder of packages for its only index."""
    packages = tmp_path / "packages"
    packagekit.wheel(packages, "greeting", "import inner\ndef words(): return inner.WORDS\n", requires=("inner>=1",))
    packagekit.wheel(packages, "inner", "WORDS = 'hello from a wheel'\n")
    home.settings |= {"P2PQ_ENVIRONMENTS_INDEX": "none", "P2PQ_ENVIRONMENTS_FIND_LINKS": str(packages)}
    home.start("--name", "home", "--slots", "2")
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
    lab.until(lambda: "env" in packaged.run("why", f"{job}.0").stdout, "it could not be built")
    why = "environment of requirements.txt: No solution found when resolving dependencies: Because missing-thing was not found"
    said = [
        packaged.ok("why", f"{job}.0"),
        packaged.ok("show", f"{job}.0"),
        packaged.run("logs", f"{job}.0").stderr,
    ]
    assert [why in " ".join(each.split()) for each in said] == [True] * 3, said
    packaged.ok("cancel", job)


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
