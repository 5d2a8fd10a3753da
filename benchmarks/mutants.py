"""Small faults in forward/ and priors/, one at a time: how many of them do the tests notice?

    pytest -m "not slow" --cov=bayesbragg --cov-context=test --junitxml=tests.xml
    python benchmarks/mutants.py [--n 200] [--seed 0] [--jobs 2] [--rooms forward,priors] [--write]

A mutant is the package with one operator, comparison, number, sign or function exchanged for a near one, at a place
chosen by the seed. The tests that reach the changed line (from the .coverage and tests.xml that the first command
leaves) run on it, those of its room first, the shortest first, until one fails (the mutant is killed) or a minute's
worth of them has run. One that lives is printed with its line: a hole in the tests, or a change that changes nothing
anybody is told, such as another rounding of a bucket. With ``--write`` the table goes to
``benchmarks/results/mutants.md``.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[1]
NAMES = {
    "maximum": "minimum", "minimum": "maximum", "max": "min", "min": "max", "sin": "cos", "cos": "sin",
    "floor": "ceil", "ceil": "floor", "any": "all", "all": "any", "exp": "expm1", "log": "log1p", "radians": "degrees",
    "degrees": "radians", "zeros": "ones", "ones": "zeros", "zeros_like": "ones_like", "ones_like": "zeros_like",
}  # fmt: skip
OPERATORS: dict[type[ast.AST], tuple[str, str]] = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.Pow: ("**", "*"),
    ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"), ast.MatMult: ("@", "*"), ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"), ast.Lt: ("<", ">="), ast.Gt: (">", "<="), ast.LtE: ("<=", ">"), ast.GtE: (">=", "<"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.And: ("and", "or"), ast.Or: ("or", "and"),
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A fault: characters ``start`` to ``end`` of a file become ``new``."""

    path: Path
    line: int
    start: int
    end: int
    old: str
    new: str

    def source(self) -> str:
        text = self.path.read_text()
        return text[: self.start] + self.new + text[self.end :]

    def __str__(self) -> str:
        shown = self.path.read_text().splitlines()[self.line - 1].strip()
        return f"{self.path.relative_to(ROOT)}:{self.line}: `{self.old}` -> `{self.new}` in `{shown}`"


def places(path: Path) -> Iterator[Mutant]:
    """Every fault of a file; none in annotations, docstrings, messages and decorators."""
    text = path.read_text()
    starts = [0]
    for row in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(row))
    tree = ast.parse(text)
    skipped: set[int] = set()
    indices: set[int] = set()
    for node in ast.walk(tree):
        hidden: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef):
            arguments = [a.annotation for a in ast.walk(node.args) if isinstance(a, ast.arg)]
            hidden += [*node.decorator_list, node.returns, *arguments]
        elif isinstance(node, ast.AnnAssign):
            hidden.append(node.annotation)
        elif isinstance(node, ast.keyword) and node.arg == "axis":
            hidden.append(node.value)  # the last axis is the second one of most arrays
        elif isinstance(node, ast.Subscript):
            indices |= {id(inner) for inner in ast.walk(node.slice) if isinstance(inner, ast.Constant)}
        elif isinstance(node, (ast.Raise, ast.JoinedStr, ast.ClassDef)):
            hidden += [node] if not isinstance(node, ast.ClassDef) else list(node.decorator_list)
        for part in hidden:
            skipped |= {id(inner) for inner in ast.walk(part)} if part is not None else set()

    def at(node: ast.expr, *, end: bool = False) -> int:
        row, column = (node.end_lineno, node.end_col_offset) if end else (node.lineno, node.col_offset)
        assert row is not None
        assert column is not None
        return starts[row - 1] + len(text[starts[row - 1] :].encode()[:column].decode())

    def between(left: ast.expr, right: ast.expr, kind: type[ast.AST]) -> Iterator[Mutant]:
        if kind not in OPERATORS:
            return
        old, new = OPERATORS[kind]
        first, last = at(left, end=True), at(right)
        place = text.find(old, first, last)
        if place >= 0 and "#" not in text[first:last]:
            yield Mutant(path, text.count("\n", 0, place) + 1, place, place + len(old), old, new)

    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.BinOp):
            yield from between(node.left, node.right, type(node.op))
        elif isinstance(node, ast.Compare):
            for left, op, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                yield from between(left, right, type(op))
        elif isinstance(node, ast.BoolOp):
            yield from between(node.values[0], node.values[1], type(node.op))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            yield Mutant(path, node.lineno, at(node), at(node) + 1, "-", "+")
        elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            old = text[at(node) : at(node, end=True)]
            # An index one too large is brought back to the last one by JAX.
            down = id(node) in indices and node.value > 0
            new = str(not node.value) if isinstance(node.value, bool) else f"({old} {'-' if down else '+'} 1)"
            yield Mutant(path, node.lineno, at(node), at(node, end=True), old, new)
        elif isinstance(node, ast.Attribute) and node.attr in NAMES:
            stop = at(node, end=True)
            yield Mutant(path, node.end_lineno or node.lineno, stop - len(node.attr), stop, node.attr, NAMES[node.attr])
        elif isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
            yield Mutant(path, node.lineno, at(node), at(node, end=True), node.id, NAMES[node.id])


class Tests:
    """Which tests reach which lines, and how long they take."""

    def __init__(self, coverage: Path, reports: list[Path]) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        for case in (case for report in reports for case in ET.parse(report).iter("testcase")):
            module, _, group = case.attrib["classname"].partition(".Test")
            place = f"{module.replace('.', '/')}.py" + (f"::Test{group}" if group else "")
            name = f"{place}::{case.attrib['name']}"
            self.seconds[name] = float(case.attrib["time"])
        data = CoverageData(str(coverage))
        data.read()
        self.lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for file in data.measured_files():
            name = file.rpartition("/bayesbragg/")[2]
            for line, contexts in data.contexts_by_lineno(file).items():
                self.lines[name][line] |= {c.rpartition("|")[0] for c in contexts if "::" in c}

    def of(self, mutant: Mutant, budget: float) -> list[str]:
        """Tests that reach the line, of its room and short ones first, until their time is spent; one at least.

        A line that runs when its module is imported is reached by every test that reaches any line of the module.
        """
        lines = self.lines[str(mutant.path.relative_to(ROOT / "bayesbragg"))]
        found = lines[mutant.line] or set().union(*lines.values())
        chosen: list[str] = []
        spent = 0.0
        room = f"tests/{mutant.path.parent.name}/"
        for name in sorted(found, key=lambda n: (not n.startswith(room), self.seconds[n])):
            if chosen and spent + self.seconds[name] > budget:
                break
            chosen.append(name)
            spent += self.seconds[name]
        return chosen


def killed(mutant: Mutant, tests: list[str], limit: float, programs: Path) -> tuple[str, float]:
    """What became of a mutant: killed, lived, or late where its tests took too long to tell."""
    clock = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "bayesbragg"
        shutil.copytree(ROOT / "bayesbragg", package, ignore=shutil.ignore_patterns("__pycache__"))
        (package / mutant.path.relative_to(ROOT / "bayesbragg")).write_text(mutant.source())
        environment = os.environ | {
            "PYTHONPATH": folder, "XDG_CACHE_HOME": folder, "JAX_COMPILATION_CACHE_DIR": str(programs),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05", "PYTHONDONTWRITEBYTECODE": "1",
            # Most of a test is compilation, and what is tested does not depend on the compiler's optimizations.
            "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
        }  # fmt: skip
        command = [
            str(Path(sys.executable).with_name("pytest")),
            "-x",
            "-q",
            "-m",
            "not slow",
            "-p",
            "no:cacheprovider",
        ]
        try:
            done = subprocess.run([*command, *tests], cwd=ROOT, env=environment, capture_output=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return "late", time.perf_counter() - clock
    # 1: a test failed; 2 and 4: a module could not even be imported, so that its tests are not there. Anything else
    # says nothing of the mutant.
    end = {0: "lived", 1: "killed", 2: "killed", 4: "killed"}.get(done.returncode)
    if end is None:
        raise RuntimeError(f"{mutant}: pytest ended with {done.returncode}: {done.stdout.decode()[-300:]}")
    return end, time.perf_counter() - clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rooms", default="forward,priors")
    parser.add_argument("--coverage", type=Path, default=ROOT / ".coverage")
    parser.add_argument("--report", type=Path, nargs="+", default=[ROOT / "tests.xml"])
    parser.add_argument("--budget", type=float, default=60.0, help="seconds of tests for a mutant")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds for a mutant")
    parser.add_argument("--rows", type=Path, help="keep what became of each here, and go on from there")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    rooms = given.rooms.split(",")
    files = sorted(path for room in rooms for path in (ROOT / "bayesbragg" / room).rglob("*.py"))
    every = [mutant for path in files for mutant in places(path)]
    chosen = random.Random(given.seed).sample(every, min(given.n, len(every)))
    tests, programs = Tests(given.coverage, given.report), Path(tempfile.mkdtemp())
    counts: Counter[str] = Counter()
    living: list[str] = []
    known: dict[str, str] = {}
    if given.rows is not None and given.rows.is_file():
        known = dict(json.loads(line) for line in given.rows.read_text().splitlines())

    def tried(mutant: Mutant) -> None:
        reached = tests.of(mutant, given.budget)
        end, seconds = known.get(f"{mutant} at {mutant.start}"), 0.0
        if end is None:
            end, seconds = killed(mutant, reached, given.limit, programs) if reached else ("lived", 0.0)
            if given.rows is not None:
                with open(given.rows, "a", encoding="utf-8") as out:
                    out.write(json.dumps([f"{mutant} at {mutant.start}", end]) + "\n")
        counts[end] += 1
        if end == "lived":
            living.append(str(mutant))
        print(f"{sum(counts.values())}: {end} in {seconds:.0f} s, {len(reached)} tests: {mutant}", flush=True)

    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(tried, chosen))
    n = sum(counts.values())
    told = counts["killed"] + counts["lived"]
    share = counts["killed"] / max(told, 1)
    head = f"{n} of {len(every)} mutants of {', '.join(rooms)} (seed {given.seed})"
    said = (
        f"{counts['killed']} of {told} (**{100 * share:.1f} %**) are noticed; {counts['late']} took too long to tell."
    )
    lines = ["# Small faults that the tests notice", "", f"{head}: {said}", ""]
    lines += ["Those that are not:", "", *(f"- {line}" for line in sorted(living))]
    print("\n".join(lines))
    if given.write:
        (ROOT / "benchmarks" / "results" / "mutants.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
