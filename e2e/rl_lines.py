"""How long the RL core is: `python -m e2e.rl_lines` prints lines of code by part, the core's and those around it.

A line counts when it holds code: no blank lines, comments or docstrings. The core is what captures, decides and learns;
around it are commands, wiring, HTTP routes, agents, the memory plan and the reference
server. Exits with 1 when the core is above its limit.
"""

from __future__ import annotations

import ast
import sys
import tokenize
from collections import Counter
from pathlib import Path

CORE = Path(__file__).parents[1] / "workloads/pinnace/rl"
LIMIT = 2_900
AROUND = {
    "cli.py", "config.py", "local.py", "metrics.py", "plan.py", "plot.py", "processes.py", "report.py",
    "trainer_process.py",
    "pod", "reference", "sampler", "server",
    "control/coordinator.py", "control/exposition.py", "control/front.py", "control/mirror.py", "control/wire.py",
    "control/__init__.py",
}  # fmt: skip
_LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.ENCODING}


def code_lines(path: Path) -> int:
    """Lines of a module that hold code."""
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in _LAYOUT]
    held = {line for token in tokens for line in range(token.start[0], token.end[0] + 1) if token.string}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            held -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(held)


def count() -> tuple[Counter[str], Counter[str]]:
    """Lines by module, or by package directly below the folder: of the core, and around it."""
    core: Counter[str] = Counter()
    around: Counter[str] = Counter()
    for path in CORE.rglob("*.py"):
        name = str(path.relative_to(CORE))
        part = name.partition("/")[0]
        (around if AROUND & {name, part} else core)[part] += code_lines(path)
    return core, around


def main() -> None:
    core, around = count()
    for title, made in (("core", core), ("around it", around)):
        for name, lines in sorted(made.items(), key=lambda one: -one[1]):
            print(f"{lines:6} {name}")
        print(f"{made.total():6} {title}\n")
    print(f"the core has {core.total()} lines of code, at most {LIMIT}")
    sys.exit(0 if core.total() <= LIMIT else 1)


if __name__ == "__main__":
    main()
