"""What goes along with a submitted folder: files and folders from elsewhere, in the tree of its job. Blocking."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from p2pq.daemon import folders
from p2pq.errors import UsageError
from p2pq.wire import names
from p2pq.wire.control import EVERYTHING
from p2pq.wire.tree import File, KeyOf, Part, Tree

Sink = Callable[[bytes, bytes], None]
"""Takes each blob, by its name."""


@dataclass(frozen=True, slots=True)
class Brought:
    """A folder that goes along with a job."""

    folder: Path
    path: str
    """Where it is in the job's tree."""
    main: str = ""
    """The executable in it that the job runs, instead of what its own folder has; empty: that."""


def with_config(tree: Tree, folder: Path, config: Path, sink: Sink, key_of: KeyOf) -> tuple[str, Tree]:
    """Return the config file's path in the tree, and a tree that holds it."""
    if not config.is_file():
        raise UsageError(f"--config {names.display(str(config))} is not a file")
    inside = config.resolve().is_relative_to(folder.resolve())
    path = config.resolve().relative_to(folder.resolve()).as_posix() if inside else config.name
    if any(file.path == path for file in tree.files):
        if inside:
            return path, tree
        raise UsageError(f"--config: the folder has a {names.display(path)} of its own; rename one of the two")
    return path, with_file(tree, config, path, sink, key_of)


def with_file(tree: Tree, file: Path, path: str, sink: Sink, key_of: KeyOf) -> Tree:
    """Return a tree that holds a file from elsewhere, too, at a path where it has none."""
    with tempfile.TemporaryDirectory() as staging:
        shutil.copyfile(file, Path(staging) / "file")  # whatever it is called, nothing leaves it out
        packed = folders.pack(Path(staging), folders.scan(Path(staging)), sink, key_of)
    renamed = tuple(msgspec.structs.replace(each, path=path) for each in packed.files)
    return merge(tree, msgspec.structs.replace(packed, files=renamed))


def with_folder(tree: Tree, brought: Brought, sink: Sink, key_of: KeyOf) -> Tree:
    """Return a tree that holds a folder from elsewhere, too, at a path where it has nothing."""
    # Whatever rules packages have for repositories, all of it is needed.
    packed = folders.pack(brought.folder, folders.scan(brought.folder, (EVERYTHING,)), sink, key_of)
    at = brought.path
    return merge(
        tree,
        msgspec.structs.replace(
            packed,
            files=tuple(msgspec.structs.replace(each, path=f"{at}/{each.path}") for each in packed.files),
            dirs=tuple(msgspec.structs.replace(each, path=f"{at}/{each.path}") for each in packed.dirs),
            links=tuple(msgspec.structs.replace(each, path=f"{at}/{each.path}") for each in packed.links),
        ),
    )


def merge(first: Tree, second: Tree) -> Tree:
    """Return one tree with the files of both, which have no path in common."""
    shift = len(first.chunks)
    moved = tuple(
        File(
            file.path,
            file.executable,
            file.size,
            tuple(Part(part.chunk + shift, part.offset, part.length) for part in file.parts),
        )
        for file in second.files
    )
    return Tree(
        files=tuple(sorted((*first.files, *moved), key=lambda file: file.path)),
        dirs=(*first.dirs, *second.dirs),
        links=(*first.links, *second.links),
        chunks=(*first.chunks, *second.chunks),
    )
