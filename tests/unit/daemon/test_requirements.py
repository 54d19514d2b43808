"""What packages a folder asks for: one form for equal wishes, and one sentence for what cannot be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pq.daemon import requirements
from p2pq.daemon.requirements import Wanted, digest, python_fits, read
from p2pq.errors import UsageError

SCRIPT = '# /// script\n# requires-python = ">=3.11, <4"\n# dependencies = ["b>1", "a"]\n# ///\nimport a\n'
PROJECT = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.11"\n'
LOCK = 'version = 1\n[[package]]\nname = "a"\nsource = { registry = "https://pypi.org/simple" }\n'


def asked(main: str = "main.py", **files: str) -> Wanted | None:
    """Return what a folder asks for; an underscore in a name stands for a dot, two for a slash."""
    texts = {name.replace("__", "/").replace("_", "."): text.encode() for name, text in files.items()}
    return read(texts.get, main)


def test_a_folder_without_any_of_it_asks_for_nothing():
    assert asked() is None
    assert asked(main_py="print()", pyproject_toml=PROJECT) is None
    assert asked(main_py="# /// script\n# [tool.p2pq]\n# warm = false\n# ///\n") is None
    assert asked("main.sh", main_sh=SCRIPT) is None


def test_the_scripts_own_block_comes_first():
    wanted = asked(main_py=SCRIPT, requirements_txt="c", pyproject_toml=PROJECT, uv_lock=LOCK)
    assert wanted == Wanted("main.py", ("a", "b>1"), python="<4,>=3.11")
    assert asked(main_py="# /// script\n# dependencies = []\n# ///\n") == Wanted("main.py")


def test_then_requirements_with_what_they_include():
    text = "# all of it\nb >= 1 ; python_version < '4'  # why\n\na==1 \\\n    --hash=sha256:00 \\\n  --hash=sha256:11\n"
    text += "-r more/x.txt\n"
    wanted = asked(
        main_py="",
        requirements_txt=text + "-c limits.txt\n",
        more__x_txt="c[d,e]\n-r ../requirements.txt\na==1 --hash=sha256:00 --hash=sha256:11",
        limits_txt="z<3\n",
        uv_lock=LOCK,
        pyproject_toml=PROJECT,
    )
    lines = ("a==1 --hash=sha256:00 --hash=sha256:11", "b >= 1 ; python_version < '4'", "c[d,e]")
    assert wanted == Wanted("requirements.txt", lines, ("z<3",))


def test_then_a_locked_project():
    wanted = asked(main_py="", pyproject_toml=PROJECT, uv_lock=LOCK)
    assert wanted == Wanted("uv.lock", project=PROJECT, lock=LOCK, python=">=3.11")
    itself = LOCK + '[[package]]\nname = "x"\nsource = { virtual = "." }\n'
    assert asked(main_py="", pyproject_toml=PROJECT, uv_lock=itself) is not None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-e .", "line 2: -e is not supported"),
        ("./lib", "'./lib' is no package by name"),
        ("/etc/passwd", "no package by name"),
        ("x.whl", "no package by name"),
        ("dist/x-1.tar.gz", "no package by name"),
        ("x @ file:///etc/passwd", "not at an https:// address"),
        ("x @ ../lib", "not at an https:// address"),
        ("x @ https://a b", "not at an https:// address"),
        ("--index-url https://evil.example", "for the owner of each node to say"),
        ("-ihttps://evil.example", "-ihttps://evil.example is not supported"),
        ("--extra-index-url=https://evil.example", "leave --extra-index-url out"),
        ("--config-settings x", "is not supported"),
        ("-r gone.txt", "includes gone.txt, which is not in the folder"),
        ("-r ../../etc/passwd", "includes ../../etc/passwd, which is not in the folder"),
        ("a\x1b[31m", "is no requirement"),
        ("a>1\x85--index-url=x", "options in 'a>1 --index-url=x' are not supported"),
        ("a --config-settings=x", "'a --config-settings=x' is no package by name"),
        ("a" * 70_000, "is no requirement"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_with_its_line(line, said):
    with pytest.raises(UsageError) as caught:
        asked(main_py="", requirements_txt=f"fine\n{line}\n")
    assert said in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_at_an_address():
    lines = ("x @ https://host/x.whl", "y @ git+https://host/y ; python_version > '3'")
    assert asked(main_py="", requirements_txt="\n".join(lines)) == Wanted("requirements.txt", lines)


@pytest.mark.parametrize(
    "block",
    [
        "dependencies = 3",
        'dependencies = ["a", 3]',
        'dependencies = ["a\\n--index-url https://evil.example"]',
        'dependencies = ["-r /etc/passwd"]',
        'dependencies = ["./x"]',
        "dependencies = [",
        "dependencies = []\nrequires-python = 3",
        'dependencies = []\nrequires-python = "three"',
        "dependencies = " + "[" * 2000,
    ],
)  # fmt: skip
def test_a_block_of_nonsense_is_refused(block):
    lines = "\n".join(f"# {line}" for line in block.split("\n"))
    with pytest.raises(UsageError):
        asked(main_py=f"# /// script\n{lines}\n# ///\n")


@pytest.mark.parametrize(
    ("project", "lock", "said"),
    [
        ("[", LOCK, "pyproject.toml is not TOML"),
        (PROJECT, "[", "uv.lock is not TOML"),
        ("", LOCK, "no \\[project\\]"),
        (PROJECT, "package = 3", "no packages"),
        (PROJECT, "package = [3]", "uv.lock: \\? comes from a folder"),
        (PROJECT, '[[package]]\nname = "lib"\nsource = { editable = "../lib" }\n', "lib comes from a folder or file"),
        (PROJECT, '[[package]]\nname = "lib"\nsource = { path = "x.whl" }\n', "lib comes from a folder or file"),
        (PROJECT, '[[package]]\nname = "lib"\n', "lib comes from a folder or file"),
    ],
)
def test_a_lock_of_nonsense_is_refused(project, lock, said):
    with pytest.raises(UsageError, match=said):
        asked(main_py="", pyproject_toml=project, uv_lock=lock)


def test_there_are_limits(monkeypatch):
    monkeypatch.setattr(requirements, "LINES_MAX", 3)
    with pytest.raises(UsageError, match="more than 3 requirements"):
        asked(main_py="", requirements_txt="a\nb\nc\nd")
    with pytest.raises(UsageError, match="no list of texts"):
        asked(main_py='# /// script\n# dependencies = ["a", "b", "c", "d"]\n# ///\n')
    monkeypatch.setattr(requirements, "FILES_MAX", 2)
    with pytest.raises(UsageError, match="includes more than 2 files"):
        asked(main_py="", requirements_txt="-r a.txt\n", a_txt="-r b.txt", b_txt="x")
    monkeypatch.setattr(requirements, "TEXT_MAX", 3)
    with pytest.raises(UsageError, match="larger than"):
        asked(main_py="", requirements_txt="abcd")


@given(st.text())
def test_whatever_stands_there_gives_one_sentence_or_requirements(text):
    for files in (
        {"requirements_txt": text},
        {"main_py": f"# /// script\n# {text}\n# ///"},
        {"pyproject_toml": text, "uv_lock": text},
    ):
        try:
            wanted = asked(**files)
        except UsageError:
            continue
        assert wanted is None or all(line.isprintable() and line[0] not in "-./" for line in wanted.lines)


def test_equal_wishes_under_equal_circumstances_have_equal_names():
    one = asked(main_py="", requirements_txt="a # x\nb\n")
    other = asked(main_py='# /// script\n# dependencies = ["b", "a"]\n# ///\n')
    assert one is not None
    assert other is not None
    assert digest(one, "3.11", "https://i") == digest(other, "3.11", "https://i")
    names = {
        digest(one, "3.11", "https://i"),
        digest(one, "3.12", "https://i"),
        digest(one, "3.11", "https://j"),
        digest(Wanted("x", ("a",), ("b",)), "3.11", "https://i"),
        digest(Wanted("x", ("a",)), "3.11", "https://i"),
        digest(Wanted("x", project="a"), "3.11", "https://i"),
        digest(Wanted("x", lock="a"), "3.11", "https://i"),
    }
    assert len(names) == 7


@pytest.mark.parametrize(
    ("wanted", "version", "fits"),
    [
        ("", "3.11.7", True),
        (">=3.11", "3.11.7", True),
        (">=3.12", "3.11.7", False),
        (">=3.9,<3.12", "3.11.7", True),
        ("<3.11", "3.11.0", False),
        ("<=3.11", "3.11.0", True),
        ("<=3.11", "3.11.1", False),
        (">3.11", "3.11.0", False),
        ("==3.11", "3.11.0", True),
        ("==3.11.*", "3.11.7", True),
        ("==3.11", "3.11.7", False),
        ("!=3.11.*", "3.11.7", False),
        ("!=3.11.6", "3.11.7", True),
        ("~=3.11", "3.12.1", True),
        ("~=3.11.2", "3.11.7", True),
        ("~=3.11.2", "3.12.0", False),
        ("~=3.12", "3.11.7", False),
    ],
)  # fmt: skip
def test_which_pythons_will_do(wanted, version, fits):
    assert python_fits(wanted, version) == fits


@pytest.mark.parametrize("wanted", ["three", ">=3.11.*", "=>3", "^3.11", ">=3.11b1", ">=" + "9" * 5000])
def test_a_python_that_is_not_understood(wanted):
    with pytest.raises(UsageError, match="not understood"):
        python_fits(wanted, "3.11.7")
