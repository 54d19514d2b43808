"""Plant each mutant in a copy of the project and run what must notice: ``python -m tests.mutations [NAME…] [--markdown]``."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutations.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
NEEDED = ("p2pq", "simulations", "tests", "pyproject.toml")
LIMIT_S = 240


def copy(folder: Path) -> None:
    """Copy what the tests need."""
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests with the copy's own modules; a marker at the end tells where they came from."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environ.update(PYTHONPATH=str(folder), PYTHONDONTWRITEBYTECODE="1")
    where = f"import p2pq, sys; assert p2pq.__file__.startswith({str(folder)!r}), p2pq.__file__; import pytest; "
    code = where + "sys.exit(pytest.main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, "-q", "-x", "-p", "no:cacheprovider", *tests.split()]
    return subprocess.run(
        argv,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def caught(mutant: Mutant) -> tuple[bool, str, float]:
    """Return whether it was noticed, by what, and in how many seconds."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="p2pq-mutant-") as name:
        folder = Path(name)
        copy(folder)
        path = folder / mutant.file
        text = path.read_text()
        assert text.count(mutant.old) == 1, f"{mutant.name}: {mutant.file} does not hold the line once"
        path.write_text(text.replace(mutant.old, mutant.new))
        compile(path.read_text(), str(path), "exec")
        done = run(folder, mutant.tests)
    failed = [line.removeprefix("FAILED ") for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    by = (
        failed[0].partition(" - ")[0].rpartition("/")[2] if failed else f"nothing (pytest ended with {done.returncode})"
    )
    # 1: tests ran and one failed; anything else is a mutant that broke the tests rather than the promise.
    return done.returncode == 1 and bool(failed), by, time.monotonic() - began


def main(argv: Sequence[str]) -> int:
    """Return 1 if a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", help="of the mutants; all by default")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--markdown", action="store_true", help="print a table")
    arguments = parser.parse_args(argv)
    chosen = [mutant for mutant in MUTANTS if not arguments.names or mutant.name in arguments.names]
    everything = " ".join(dict.fromkeys(test for mutant in chosen for test in mutant.tests.split()))
    with tempfile.TemporaryDirectory(prefix="p2pq-mutant-") as name:
        copy(Path(name))
        before = run(Path(name), everything)
    if before.returncode:
        print(before.stdout[-3000:], "the tests fail without any mutant", sep="\n", file=sys.stderr)
        return 2
    if arguments.markdown:
        print("| mutant | in | promise | noticed by |\n|---|---|---|---|")
    survived = 0
    began = time.monotonic()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, (noticed, by, took_s) in zip(chosen, pool.map(caught, chosen), strict=True):
            survived += not noticed
            if arguments.markdown:
                print(
                    f"| {mutant.name} | `{mutant.file}` | {mutant.breaks} | {by if noticed else '**nothing**'} |",
                    flush=True,
                )
            else:
                print(f"{'caught  ' if noticed else 'SURVIVED'} {mutant.name:<34} {took_s:5.1f} s  {by}", flush=True)
    print(f"{len(chosen)} mutants, {survived} survived, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
