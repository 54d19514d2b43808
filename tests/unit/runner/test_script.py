"""What a script imports at its top, as far as nothing can be done before."""

from pathlib import Path

import pytest

from p2pq.runner import script

INSTALLED = {"a", "b", "c", "numpy"}


def imports(folder: Path, text: str | bytes, **beside: str) -> list[str]:
    """Return what was found: MODULE, or MODULE:NAMES."""
    (folder / "main.py").write_bytes(text.encode() if isinstance(text, str) else text)
    for name, content in beside.items():
        path = folder / (name.replace("__in__", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    found = script.Script(str(folder), INSTALLED.__contains__).read(str(folder / "main.py"))
    return [":".join([module, ",".join(names)]) if names else module for module, names in found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("import a, b.x as y\nfrom c import d, e as f\nfrom c.z import *", ["a", "b.x", "c:d,e", "c.z:*"]),
        ("'''Says.'''\nfrom __future__ import annotations\nimport a", ["a"]),
        ("import a\nimport a", ["a"]),
        ("N = -1\nM: 'int' = (N, [2], {'x': N + 1}, {3}, N < 2 and not N)\nK: int\nimport a", ["a"]),
        ("def f(x: int = 3, *, y=None) -> int:\n    import b\n    g()\nimport a", ["a"]),
        ("async def f(): pass\nclass A(object):\n    '''Is.'''\n    x = 1\n    def f(self): pass\nimport a", ["a"]),
        ("f = lambda x=1: g(x)\nimport a", ["a"]),
        ("import a\nimport gone\nimport b", ["a"]),
        ("import a\nprint()\nimport b", ["a"]),
        ("import a\na.x = 1\nimport b", ["a"]),
        ("import a\nx = a.f()\nimport b", ["a"]),
        ("import a\nx = f'{a}'\nimport b", ["a"]),
        ("import a\nx = [y for y in a]\nimport b", ["a"]),
        ("import a\n@a.jit\ndef f(): pass\nimport b", ["a"]),
        ("import a\n@a.data\nclass A: pass\nimport b", ["a"]),
        ("import a\nclass A(metaclass=a.M): pass\nimport b", ["a"]),
        ("import a\nclass A(a.f()): pass\nimport b", ["a"]),
        ("import a\nclass A:\n    a.f()\nimport b", ["a"]),
        ("import a\ndef f(x=a.f()): pass\nimport b", ["a"]),
        ("import a\ndel a\nimport b", ["a"]),
        ("import a\nif a:\n    import b\nimport c", ["a"]),
        ("import a\nfor x in a: pass\nimport b", ["a"]),
        ("import a\nwith a: pass\nimport b", ["a"]),
        ("if __name__ == '__main__':\n    import a\nimport b", []),
        ("if TYPE_CHECKING:\n    import a\nimport b", ["b"]),
        ("if typing.TYPE_CHECKING:\n    import a\nimport b", ["b"]),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    f()\nimport b", []),
        ("try:\n    import gone\nexcept ImportError:\n    gone = None\nelse:\n    from b import x\nimport a", ["a"]),
        ("try:\n    import gone\nexcept ImportError:\n    sys.exit()\nimport a", []),
        ("try:\n    from . import x\nexcept ImportError:\n    pass\nimport a", []),
        ("try:\n    x = f()\nfinally:\n    pass\nimport a", []),
        ("from . import x\nimport a", []),
        ("from .x import y\nimport a", []),
        ("import a\nx = = 1", []),
        (b"import a\n\0", []),
        (b"import a\nx = '\xff'", []),
        (b"# coding: latin-1\nimport a\nx = '\xff'", ["a"]),
        ("x = " + "(" * 500 + ")" * 500, []),
        ("import a\n" + "#" * script.FILE_BYTES_MAX, []),
    ],
)
def test_what_comes_before_anything_is_done(tmp_path: Path, text: str | bytes, found: list[str]) -> None:
    assert imports(tmp_path, text) == found


def test_modules_beside_the_script_import_for_it(tmp_path: Path) -> None:
    found = imports(
        tmp_path,
        "from model import run\nimport package.inner\nfrom package import other, NAME\nimport numpy",
        model="import a\nimport main\nif __name__ == '__main__':\n    run()\n",
        package__in____init__="from . import other\n",
        package__in__inner="import b\nfrom .other import x\nfrom . import other\n",
        package__in__other="NAME = 1\nimport c\n",
    )
    assert found == ["a", "c", "b", "numpy"]


@pytest.mark.parametrize("does", ["f()", "if x: pass", "from ... import y", "import gone", "x = ="])
def test_after_a_module_that_does_something_nothing_counts(tmp_path: Path, does: str) -> None:
    assert imports(tmp_path, "import a\nimport package.inner\nimport b", package__in__inner=does) == ["a"]
    assert imports(tmp_path, "import a\ntry:\n    import numpy\nexcept ImportError: pass\nimport b", numpy=does) == [
        "a"
    ]


def test_what_is_installed_is_preferred_to_a_folder_without_a_module(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "names" / "below").mkdir(parents=True)
    (tmp_path / "names" / "below" / "x.py").write_text("import b")
    assert imports(tmp_path, "import numpy\nimport names.below.x\nimport a") == ["numpy", "b", "a"]


def test_a_compiled_module_beside_the_script_may_do_anything(tmp_path: Path) -> None:
    (tmp_path / "fast.cpython-311.so").touch()
    assert imports(tmp_path, "import a\nimport fast\nimport b") == ["a"]


def test_a_script_that_is_not_there_imports_nothing(tmp_path: Path) -> None:
    assert script.Script(str(tmp_path), INSTALLED.__contains__).read(str(tmp_path / "gone.py")) == []


def test_so_many_files_are_read_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "FILES_MAX", 3)
    chain = {f"m{number}": f"import m{number + 1}" for number in range(10)}
    assert imports(tmp_path, "import a\nimport m0\nimport b", **chain, m10="") == ["a"]


def test_names_of_modules_in_a_folder(tmp_path: Path) -> None:
    for name in ("one.py", "two.pyc", "three.cpython-311-x86_64-linux-gnu.so", "data.txt", "Makefile"):
        (tmp_path / name).touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "folder").mkdir()
    assert script.names_in(str(tmp_path)) == {"one", "two", "three", "package"}
