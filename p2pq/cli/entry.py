"""Where the program ``p2pq`` begins: with what has to be over at once, before anything that takes long is imported."""

import sys


def main() -> None:
    """Run the command line; the process ends with the exit code of cli.md."""
    if sys.argv[1:2] == ["run"]:
        from p2pq.cli import quick  # noqa: PLC0415  the other commands do not need it

        code = quick.run(sys.argv[2:])
        if code is not None:
            sys.exit(code)
    from p2pq.cli.main import main as whole  # noqa: PLC0415  slow to import

    whole()
