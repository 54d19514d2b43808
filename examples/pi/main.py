"""Estimate pi by throwing points at a square: one independent, reproducible sample per seed.

Standard library only. ``--seed`` chooses the sample, so equal arguments give equal files anywhere.
"""

import argparse
import json
import os
import random
from pathlib import Path

PROGRESS_EVERY = 50_000


def throw(seed: int, points: int, progress: Path) -> int:
    """Return how many of ``points`` random points of the unit square lie in the quarter disc."""
    rng = random.Random(seed)
    inside = 0
    for done in range(points):
        x, y = rng.random(), rng.random()
        inside += x * x + y * y < 1.0
        if done % PROGRESS_EVERY == 0:
            progress.write_text(f"{done / points:.3f}\n")  # feeds the progress bar
    progress.unlink(missing_ok=True)
    return inside


def main() -> None:
    """Parse the arguments, throw, write ``pi.txt`` and ``pi.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", type=int, default=400_000)
    args = parser.parse_args()

    results = Path(os.environ.get("P2PQ_RESULTS", "results"))
    results.mkdir(parents=True, exist_ok=True)
    inside = throw(args.seed, args.points, results / ".progress")
    estimate = 4 * inside / args.points

    (results / "pi.txt").write_text(f"{estimate:.6f}\n")
    report = {"seed": args.seed, "points": args.points, "inside": inside, "pi": estimate}
    (results / "pi.json").write_text(json.dumps(report) + "\n")
    print(f"seed {args.seed}: pi is about {estimate:.6f}")


if __name__ == "__main__":
    main()
