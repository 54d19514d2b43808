"""What a folder says about its own job."""

import pytest

from p2pq.daemon.foldersettings import BYTES_MAX, FolderSettings, read
from p2pq.errors import UsageError

COLD = FolderSettings(warm=False)
BLOCK = "#!/usr/bin/env python\n# /// script\n# dependencies = []\n#\n# [tool.p2pq]\n# warm = false\n# ///\nprint()\n"


@pytest.mark.parametrize(
    ("main", "project", "found"),
    [
        ("", "", FolderSettings()),
        ("print()", "[tool.p2pq]\nwarm = false\n", COLD),
        ("print()", "[tool.p2pq]\n", FolderSettings()),
        ("print()", "[tool.ruff]\nline-length = 3\n[project]\nname = 'p2pq'", FolderSettings()),
        ("print()", "tool = 'p2pq'", FolderSettings()),
        ("print()", "not toml at all", FolderSettings()),
        ("print()", "tool.p2pq.warm = false" + " " * BYTES_MAX, FolderSettings()),
        (BLOCK, "", COLD),
        (BLOCK, "tool.p2pq.warm = true", COLD),
        (BLOCK.replace("\n", "\r\n"), "", COLD),
        (BLOCK.replace("[tool.p2pq]\n# warm = false", "[tool.other]"), "tool.p2pq.warm = false", COLD),
        (BLOCK.replace("# ///\n", ""), "", FolderSettings()),
        (BLOCK.replace("# ///\n", "print()\n# ///\n"), "", FolderSettings()),
        (BLOCK.replace("# /// script", "# /// other"), "", FolderSettings()),
    ],
)
def test_the_script_says_or_else_the_project(tmp_path, main, project, found):
    (tmp_path / "main.py").write_bytes(main.encode())
    (tmp_path / "pyproject.toml").write_text(project)
    assert read(tmp_path, "main.py") == found


def test_what_is_no_python_has_no_block(tmp_path):
    (tmp_path / "main.sh").write_text(BLOCK)
    assert read(tmp_path, "main.sh") == FolderSettings()


@pytest.mark.parametrize("said", ["warm = 1", "wram = false", "warm = ", "warm = {a = 1}"])
def test_what_cannot_be_understood_is_refused_in_one_sentence(tmp_path, said):
    (tmp_path / "pyproject.toml").write_text(f"[tool.p2pq]\n{said}\n")
    with pytest.raises(UsageError, match=r"^\[tool.p2pq\] in pyproject.toml is not usable \(.*\); it may hold: warm$"):
        read(tmp_path, "main.py")
    (tmp_path / "main.py").write_text(BLOCK.replace("warm = false", said))
    with pytest.raises(UsageError, match=r"in main.py is not usable"):
        read(tmp_path, "main.py")


def test_a_table_that_is_none_is_refused(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool]\np2pq = 3\n")
    with pytest.raises(UsageError, match="not usable"):
        read(tmp_path, "main.py")
