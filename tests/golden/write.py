"""Write the golden files of the present minor version that are missing: ``python -m tests.golden.write``.

A file that is there is never changed. While no release speaks this version (``RELEASED`` in tests/golden/kinds.py), delete a
file whose type has grown and run this again; look at the difference, as every node that runs the old code will see it.
"""

import sys

from p2pq.wire.messages import MINOR
from tests.golden.kinds import RELEASED, folder, kinds, text


def main() -> int:
    """Write what is missing; return 1 where a file is not as this code would write it."""
    wrong = []
    for name, kind in kinds().items():
        path = folder() / f"{name}.json"
        if not path.exists():
            if MINOR in RELEASED:
                wrong.append(
                    f"{path} is missing, and p2pq {RELEASED[MINOR]} speaks {MINOR}: a new type needs a new minor version"
                )
                continue
            folder().mkdir(exist_ok=True)
            path.write_text(text(kind))
            print(f"wrote {path}")
        elif path.read_text() != text(kind):
            wrong.append(f"{path} is not what this code says; see python -m tests.golden.write --help")
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(__doc__)
        sys.exit(2)
    sys.exit(main())
