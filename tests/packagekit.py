"""Packages made on the spot, so that environments can be built without any network: wheels, and sources that run code."""

import io
import tarfile  # noqa: TID251  what packages are
import zipfile  # noqa: TID251
from pathlib import Path

BACKEND = """\
import os, sys, zipfile
sys.path.insert(0, os.path.dirname(__file__))


def build_wheel(folder, settings=None, metadata=None):
    import payload
    name = "{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in {files!r}.items():
            wheel.writestr(path, text)
    return name
"""
PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "{name}"
version = "{version}"
"""


def _files(name: str, version: str, code: str, requires: tuple[str, ...]) -> dict[str, str]:
    about = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    return {
        f"{name}.py": code,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": f"{name}.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n",
    }


def wheel(folder: Path, name: str, code: str = "", *, version: str = "1.0", requires: tuple[str, ...] = ()) -> Path:
    """Put a package of one module into a folder, as a wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for inner, text in _files(name, version, code, requires).items():
            file.writestr(inner, text)
    return path


def source(folder: Path, name: str, payload: str, code: str = "", *, version: str = "1.0") -> Path:
    """Put a package into a folder as sources whose build runs ``payload``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}.tar.gz"
    inner = {
        "backend.py": BACKEND.format(name=name, version=version, files=_files(name, version, code, ())),
        "payload.py": payload,
        "pyproject.toml": PROJECT.format(name=name, version=version),
        "PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for file, text in inner.items():
            raw = text.encode()
            info = tarfile.TarInfo(f"{name}-{version}/{file}")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path
