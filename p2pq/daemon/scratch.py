"""The folders of one runner: what its tasks work in, what they print, and what else of its code it imports."""

import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from p2pq.runner import confine, emptying, script, warm, zygote
from p2pq.runner import folder as task_folder

RUNNER_FILES: Final = {
    f"{warm.NAME}.py": Path(warm.__file__),
    f"{warm.SCRIPTS}.py": Path(script.__file__),
    "zygote.py": Path(zygote.__file__),
    "confine.py": Path(confine.__file__),
    "emptying.py": Path(emptying.__file__),
    "folder.py": Path(task_folder.__file__),
}
"""What the runner and its zygote import, by the names under which they do."""


@dataclass(frozen=True)
class Scratch:
    """The folders of one runner, private to the daemon but for ``job``."""

    root: Path

    @cached_property
    def prints(self) -> tuple[Path, Path]:
        """The files of standard output and error."""
        return self.output / "stdout", self.output / "stderr"

    @property
    def job(self) -> Path:
        """What a task sees as its folder."""
        return self.root / "job"

    @property
    def temporary(self) -> Path:
        """TMPDIR at the levels ``basic`` and ``none``; a strict sandbox has its own."""
        return self.root / "tmp"

    @property
    def begun(self) -> Path:
        """What stays from task to task: what the job's ``--begin`` has left."""
        return self.root / "begun"

    @cached_property
    def written(self) -> tuple[Path, ...]:
        """Where a task can write."""
        return self.job, self.temporary, self.begun

    @property
    def runner(self) -> Path:
        """``RUNNER_FILES`` as the levels ``basic`` and ``none`` see them."""
        return self.root / "runner"

    @property
    def output(self) -> Path:
        """Where standard output and error are kept, out of the task's sight."""
        return self.root / "out"

    def create(self) -> None:
        """Make the folders, for the owner only."""
        for folder in (self.root, self.job, self.temporary, self.begun, self.output, self.runner):
            folder.mkdir(mode=0o700, parents=folder == self.root)
        for name, file in RUNNER_FILES.items():
            (self.runner / name).symlink_to(file)

    def open_up(self) -> None:
        """Make the task's folder accessible, or its results would look like a fault of this machine."""
        if stat.S_ISDIR(self.job.lstat().st_mode):
            self.job.chmod(0o700)

    def empty(self, *, begun: bool = False) -> None:
        """Delete what a task left, or what ``--begin`` did, too; no process of it may be alive."""
        for folder in (self.job, self.temporary, self.output, *([self.begun] if begun else [])):
            emptying.empty_folder(str(folder))

    def remove(self) -> None:
        """Delete the folders and all in them."""
        emptying.empty_folder(str(self.root))
        self.root.rmdir()
