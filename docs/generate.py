"""Write the pages that the program computes; with `--check`, only say whether they are current."""

import sys
from pathlib import Path

import numpy as np

from logpi.derivation import derive
from logpi.derivation_text import as_page
from logpi.mdp import stay_or_leave

DOCS = Path(__file__).parent


def derivation_page() -> str:
    mdp = stay_or_leave()
    return as_page(derive(mdp, np.random.default_rng(0).normal(size=(mdp.observations, mdp.actions))))


PAGES = {"derivation.md": derivation_page}


def main() -> int:
    stale = [name for name, page in PAGES.items() if (DOCS / name).read_text() != page()]
    if "--check" not in sys.argv:
        for name in stale:
            (DOCS / name).write_text(PAGES[name]())
    print("written:" if "--check" not in sys.argv else "stale:", ", ".join(stale) or "none")
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
