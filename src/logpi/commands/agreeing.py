"""Whether a person agrees to import what a stranger's run names."""

import sys
from pathlib import Path


def agrees(run_folder: Path) -> bool:
    """Ask in a terminal whether to import what a stranger's run names."""
    from logpi.runs.folder import RunFolder

    found = RunFolder.open(run_folder).foreign_code()
    if found is None or not sys.stdin or not sys.stdin.isatty():
        return False
    print(f"{found}.")
    return input("Import it? [y/N] ").strip().lower() in ("y", "yes")
