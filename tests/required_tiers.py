"""Say which tiers should have run here and did not: ``python tests/required_tiers.py FIGURES…``. Used by .ci/run.

The figures are those of tests/conftest.py, of each part of the suite.
As root every tier must have run without a skip, but for tests that need an
ordinary user; as an ordinary user the network namespaces, and tests that need root, may be missing.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ALWAYS = ("unit", "property", "tidy", "sim", "sandbox", "desktop", "e2e")
ROOT_ONLY = ("netns",)


def missing(figures: Mapping[str, Mapping[str, Any]], *, root: bool) -> list[str]:
    """Return one sentence for each tier that did not run as it must."""
    excuse = "needs an ordinary user" if root else "needs root"
    found = []
    for tier in ALWAYS + (ROOT_ONLY if root else ()):
        skipped = [why for why in figures[tier]["reasons"] if excuse not in why]
        if not figures[tier]["passed"]:
            found.append(f"{tier}: nothing ran")
        elif skipped:
            found.append(f"{tier}: skipped: {'; '.join(skipped)}")
    return found


def together(parts: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return the figures of all parts, by tier."""
    return {
        tier: {
            "passed": sum(part[tier]["passed"] for part in parts),
            "reasons": [reason for part in parts for reason in part[tier]["reasons"]],
        }
        for tier in ALWAYS + ROOT_ONLY
    }


if __name__ == "__main__":
    figures = together([json.loads(Path(name).read_text()) for name in sys.argv[1:]])
    sentences = missing(figures, root=os.geteuid() == 0)
    for sentence in sentences:
        print(f"required tier missing: {sentence}", file=sys.stderr)
    sys.exit(bool(sentences))
