"""Count slowly; when told to end, save how far it is; when run again, on any machine, go on from there.

Standard library only. The folder ``results/.checkpoint/`` travels from attempt to attempt.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    """Parse the arguments, count, write ``count.txt``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=int, default=30)
    args = parser.parse_args()

    results = Path(os.environ.get("P2PQ_RESULTS", "results"))
    saved = results / ".checkpoint" / "count.txt"
    count = int(saved.read_text()) if saved.exists() else 0
    print(f"beginning at {count}")

    def save(_signal: int, _frame: object) -> None:
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.write_text(f"{count}\n")
        print(f"saved at {count}")
        sys.exit(1)

    signal.signal(signal.SIGTERM, save)
    while count < args.to:
        time.sleep(0.5)
        count += 1
        (results / ".progress").write_text(f"{count / args.to:.3f}\n")
    (results / "count.txt").write_text(f"{count}\n")
    print(f"counted to {count}")


if __name__ == "__main__":
    main()
