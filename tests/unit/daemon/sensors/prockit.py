"""A /proc of a test's own."""

from pathlib import Path


class FakeProc:
    """Processes as the kernel shows them, below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc = root / "proc"
        self.proc.mkdir()

    def process(
        self, pid: int, *, started: int = 5, own: int = 0, reaped: int = 0, children: str = "", argv: str = "x"
    ) -> None:
        """Write or change a process; times are ticks."""
        thread = self.proc / str(pid) / "task" / str(pid)
        thread.mkdir(parents=True, exist_ok=True)
        numbers = [1, 1, 1, 0, -1, 0, 0, 0, 0, 0, own, 0, reaped, 0, 20, 0, 1, 0, started, 0]
        (self.proc / str(pid) / "stat").write_text(f"{pid} (a) b) S {' '.join(map(str, numbers))}\n")
        (self.proc / str(pid) / "comm").write_text(f"{argv.rpartition('/')[2].split(' ')[0][:15]}\n")
        (self.proc / str(pid) / "cmdline").write_text("\0".join(argv.split(" ")) + "\0" if argv else "")
        (thread / "children").write_text(children)

    def gone(self, pid: int) -> None:
        """End a process."""
        for path in sorted((self.proc / str(pid)).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (self.proc / str(pid)).rmdir()

    def busy(self, *ticks: int) -> None:
        """Say how long each core was busy."""
        lines = [f"cpu{number} {busy} 0 0 1000 7 0 0 99 0 0" for number, busy in enumerate(ticks)]
        (self.proc / "stat").write_text("\n".join([f"cpu {sum(ticks)} 0 0 0 0 0 0 0 0 0", *lines, "intr 1 2 3", ""]))
