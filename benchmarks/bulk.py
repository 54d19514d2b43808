"""200 MB to another node and back, as one file and as 10,000; beside copying, packing and unpacking in one process."""

import os
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks.figures import Figure
from benchmarks.nodes import Node, run_job, timed
from p2pq.client.connection import Connection
from p2pq.daemon import folders
from p2pq.daemon.blobstore import BlobStore
from p2pq.daemon.unpack import unpack
from p2pq.wire import control
from p2pq.wire.tree import convergent

GOAL: Final = 2.0
SIZE: Final = 200_000_000
FILES: Final = 10_000
BLOCK: Final = 20_000
"""Half of each block is noise, half is text that lz4 makes small."""

# Renaming costs nothing, so the job's own time does not blur the way back.
SCRIPT: Final = """\
import os, time
began = time.time()
os.rename("data", "results/data")
with open("results/times.txt", "w") as file:
    file.write(f"{began} {time.time()}")
"""


def run(base: Path, runs: int, *, size: int = SIZE, files: int = FILES) -> list[Figure]:
    """Measure."""
    figures = []
    with Node(base / "here", "--slots", "1") as here, Node(base / "there", "--slots", "1") as there:
        there.join(here)
        for count, what in ((1, f"{size / 1e6:.0f} MB, one file"), (files, f"{size / 1e6:.0f} MB, {files:,} files")):
            with here.connect() as node:
                figures += _measure(base, node, there, (count, size, what), runs)
    return figures


def _measure(base: Path, node: Connection, there: Node, what: tuple[int, int, str], runs: int) -> list[Figure]:
    count, size, name = what
    outs, backs, references, copies = [], [], [], []
    for number in range(runs):
        folder = base / f"job-{count}-{number}"
        _fill(folder / "data", count, size)
        (folder / "main.py").write_text(SCRIPT)
        copy, pack, back = _reference(folder, base / "reference")
        copies.append(copy)
        references.append(copy + pack + back)
        out, home = _there_and_back(node, folder, there)
        outs.append(out)
        backs.append(home)
        shutil.rmtree(folder)
    figures = []
    for way, took in (("there", outs), ("back", backs)):
        ratios = tuple(one / reference for one, reference in zip(took, references, strict=True))
        figures.append(Figure(name=f"{name}, {way}", unit="x", samples=ratios, goal=GOAL, note="of the reference"))
        figures.append(Figure(name=f"{name}, {way}", unit="s", samples=tuple(took), note=f"sandbox {there.sandbox}"))
    note = f"cp -r ({sorted(copies)[runs // 2]:.2f} s), pack and unpack in one process"
    figures.append(Figure(name=f"{name}, reference", unit="s", samples=tuple(references), note=note))
    return figures


def _there_and_back(node: Connection, folder: Path, there: Node) -> tuple[float, float]:
    """Return the seconds from submission to the script's start, and from its end until all results lie here."""
    os.sync()  # what was written before is not this run's business
    began = time.time()
    run_job(node, control.Submit(folder=str(folder), where=there.home.path.name))
    ended = time.time()
    script_began, script_ended = map(float, (folder / "results/times.txt").read_text().split())
    if _size(folder / "results/data") != _size(folder / "data"):
        raise RuntimeError("the results are not what was sent")
    return script_began - began, ended - script_ended


def _reference(folder: Path, scratch: Path) -> tuple[float, float, float]:
    """Return the seconds of ``cp -r``, of packing durably, and of unpacking, one after the other in this process."""
    scratch.mkdir()
    os.sync()
    copy = timed(lambda: subprocess.run(["cp", "-r", str(folder), str(scratch / "copy")], check=True))
    blobs = BlobStore(scratch / "blobs", quota_bytes=1 << 40, reserve_bytes=0)
    os.sync()
    began = time.perf_counter()
    tree = folders.pack(folder, folders.scan(folder), blobs.add, convergent(os.urandom(32)))
    blobs.sync()
    packed = time.perf_counter()
    unpack(tree, lambda chunk: blobs.get(chunk.blob), scratch / "unpacked")
    unpacked = time.perf_counter()
    shutil.rmtree(scratch)
    return copy, packed - began, unpacked - packed


def _fill(folder: Path, count: int, size: int) -> None:
    """Write files of new content: nothing of it has been packed before."""
    draw = random.Random(os.urandom(8))
    text = b"0.12345 " * (BLOCK // 8)
    each = size // count
    for number in range(count):
        path = folder / f"{number // 100:03}" / f"{number:05}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            left = each
            while left:
                half = min(BLOCK, left) // 2
                data = (draw.randbytes(half) + text)[: min(2 * half or 1, left)]
                file.write(data)
                left -= len(data)


def _size(folder: Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)
