"""How densely the source is written: counts that a reader feels.

python tests/program/density.py [FOLDER]
"""

import ast
import sys
from pathlib import Path

LONGEST_LINE = 100


def nested(expression):
    """Whether a conditional expression holds another."""
    inner = (node for child in ast.iter_child_nodes(expression) for node in ast.walk(child))
    return any(isinstance(node, ast.IfExp) for node in inner)


def is_tuple_assignment(node):
    """`a, b = x, y`: two statements in one."""
    if not isinstance(node, ast.Assign):
        return False
    return isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def is_call_of(node, name):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


COUNTED = {
    "assigned lambdas": lambda node: (
        isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda)
    ),
    "lambdas": lambda node: isinstance(node, ast.Lambda),
    "tuple assignments": is_tuple_assignment,
    "conditional expressions": lambda node: isinstance(node, ast.IfExp),
    "nested conditional expressions": lambda node: isinstance(node, ast.IfExp) and nested(node),
    "Any": lambda node: isinstance(node, ast.Name) and node.id == "Any",
    "isinstance": lambda node: is_call_of(node, "isinstance"),
}


def count(folder: Path) -> dict[str, int]:
    """The counts over all Python files of a folder, beside the number of their lines."""
    found = dict.fromkeys(["files", "lines", "lines over 100", *COUNTED], 0)
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text()
        found["files"] += 1
        found["lines"] += text.count("\n")
        found["lines over 100"] += sum(len(line) > LONGEST_LINE for line in text.splitlines())
        for node in ast.walk(ast.parse(text)):
            for name, holds in COUNTED.items():
                found[name] += holds(node)
    return found


def main() -> None:
    """Print the counts, and how many there are in a thousand lines."""
    own = Path(__file__).parents[2] / "src"
    found = count(Path(sys.argv[1]) if len(sys.argv) > 1 else own)
    for name, number in found.items():
        print(f"{name:32} {number:6} {1000 * number / found['lines']:8.1f} / 1000 lines")


if __name__ == "__main__":
    main()
