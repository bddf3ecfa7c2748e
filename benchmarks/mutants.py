"""Small faults planted in the source, one at a time: which do the tests of the place notice? Nightly; `make mutants`.

cosmic-ray plants them and keeps each outcome in one database a module, so that a run that was stopped goes on. This
file says which tests watch which module, draws a sample (seeded; a larger one begins with the smaller one's faults),
adds three kinds of fault to those of cosmic-ray, and works in a copy of the tree, never in the checkout.
"""

import argparse
import hashlib
import os
import random
import shutil
import subprocess
from multiprocessing import Process
from pathlib import Path

from cosmic_ray import plugins
from cosmic_ray.commands.init import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.operators.operator import Operator
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkItem
from parso.python.tree import Keyword

HOME = Path(__file__).parents[1]
STATIC = "tests/contract/test_contract.py::test_only_arrays_and_step_sizes_are_leaves"
RULES = f"{STATIC} tests/credit/test_rules.py tests/learners/test_halves.py tests/verify/test_exactness.py"
ONLINE = "tests/learners/test_parallel_streams.py tests/learners/test_online.py tests/learners/test_halves.py"
TARGETS = f"{STATIC} tests/learners/test_targets.py"
# Module of src/onward: the tests that watch it, those that take little time first.
WATCHED = {
    "saving.py": "tests/test_saving.py tests/test_arrays.py tests/lab/test_folder.py",
    "lab/folder.py": "tests/lab/test_folder.py tests/test_arrays.py tests/lab/test_train.py",
    "lab/train.py": "tests/lab/test_resumed.py tests/lab/test_train.py tests/lab/test_early_stopping.py",
    "loop.py": "tests/test_loop.py tests/lab/test_resumed.py tests/lab/test_early_stopping.py tests/lab/test_train.py",
    "rows/session.py": "tests/rows/test_session.py tests/rows/test_learn.py",
    "rows/stream/moments.py": "tests/rows/test_moments.py tests/rows/test_missing.py",
    **{f"credit/{name}.py": RULES for name in ("base", "columnwise", "rflo", "rtrl", "snap", "tbptt", "uoro")},
    **{f"learners/{name}.py": ONLINE for name in ("online",)},
    "learners/base.py": f"{ONLINE} {TARGETS}",
    "learners/optimisers.py": f"tests/learners/test_least_squares.py {ONLINE}",
    "learners/bptt.py": f"tests/learners/test_bptt.py {TARGETS} tests/verify/test_gradient.py tests/credit/test_rules.py",
    "learners/tptt.py": TARGETS,
    "learners/inverses.py": TARGETS,
    "learners/frequencies.py": f"{STATIC} tests/learners/test_frequencies.py",
    "learners/late.py": "tests/learners/test_late_targets.py",
    "learners/watched.py": "tests/learners/test_watched.py tests/learners/test_halves.py tests/verify/test_exactness.py",
    **{f"objectives/{name}.py": ONLINE for name in ("base", "supervised", "td")},
}
# Of cosmic-ray's own faults: those that a person makes. `|` in a type and the like end every import, and say nothing.
SLIPS = {
    *("AddNot", "NumberReplacer", "ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse"),
    *("ReplaceFalseWithTrue", "ZeroIterationForLoop", "ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    *("ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_Delete_USub", "ExceptionReplacer"),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("Mod_FloorDiv", "Pow_Mul")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Eq_NotEq", "NotEq_Eq", "Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Is_IsNot", "IsNot_Is")),
}
OTHER = {"any": "all", "min": "max", "minimum": "maximum", "mean": "sum", "floor": "ceil", "argmin": "argmax"}
OTHER |= {other: name for name, other in OTHER.items()}


class OtherName(Operator):
    """`any` for `all`, `mean` for `sum`, ..."""

    def mutation_positions(self, node):
        if node.type == "name" and node.value in OTHER and not node.is_definition():
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        node.value = OTHER[node.value]
        return node

    examples = classmethod(lambda cls: ())


class NoStatement(Operator):
    """A call whose result nobody reads, or an assignment to part of something (`+=` too), left out."""

    def mutation_positions(self, node):
        if node.type == "simple_stmt" and self._is_left_out(node.children[0]):
            yield node.start_pos, node.end_pos

    def _is_left_out(self, node):
        if node.type == "expr_stmt":
            return node.children[0].type in ("atom_expr", "power") or node.children[1].type == "operator_assign"
        return node.type in ("atom_expr", "power")

    def mutate(self, node, index):
        node.children[0] = Keyword("pass", node.start_pos, node.get_first_leaf().prefix)
        return node

    examples = classmethod(lambda cls: ())


class NoArgument(Operator):
    """A named argument left out of a call of several."""

    def mutation_positions(self, node):
        if node.type == "arglist":
            for child in self._named(node):
                yield child.start_pos, child.end_pos

    def _named(self, node):
        return [c for c in node.children if c.type == "argument" and c.children[1] == "="]

    def mutate(self, node, index):
        at = node.children.index(self._named(node)[index])
        del node.children[max(at - 1, 0) : max(at, 1) + 1]
        return node

    examples = classmethod(lambda cls: ())


class Faults(dict):
    """What is planted, as cosmic-ray wants its operators: by name."""

    def __init__(self):
        core = plugins.OPERATOR_PROVIDERS["core"]
        super().__init__({name: core[name] for name in core if name in SLIPS})
        self.update({kind.__name__: kind for kind in (OtherName, NoStatement, NoArgument)})


def database(module: str, work: Path) -> Path:
    """The database of a module as it stands; a changed one starts anew."""
    source = HOME / "src/onward" / module
    path = work / f"{module.replace('/', '-')}-{hashlib.sha256(source.read_bytes()).hexdigest()[:8]}.sqlite"
    if not path.exists():
        with use_db(path, WorkDB.Mode.create) as db:
            init([source.relative_to(HOME)], db, {})
    return path


def says_nothing(item: WorkItem, lines: list[str]) -> bool:
    """Whether it changes no more than `strict=True`, or the * between parameters.

    That two sequences are of one length is so with and without it; and what is given by name may be given by place.
    """
    line, column = item.mutations[0].start_pos
    before, after = lines[line - 1][:column], lines[line - 1][column:]
    return before.endswith("strict=") or after.startswith(("strict=", "*,"))


def sample(db: WorkDB, module: str, seed: int, size: int) -> list:
    """The first faults of all, shuffled; of those that change something."""
    lines = (HOME / "src/onward" / module).read_text().splitlines()
    spec = lambda item: (item.mutations[0].operator_name, item.mutations[0].occurrence)
    items = sorted(db.work_items, key=spec)
    random.Random(seed).shuffle(items)
    return [item for item in items if not says_nothing(item, lines)][:size]


def command(python: str, module: str) -> str:
    tests = [name for name in WATCHED[module].split() if (HOME / name.partition("::")[0]).exists()]
    options = "-m pytest -q -x -p no:cacheprovider -m 'not slow and not experiment'"
    return " ".join([python, options, f"src/onward/{module}", *tests])


def work_through(modules: list[str], arguments: argparse.Namespace, copy: Path) -> None:
    """One fault of each module, then the next of each, in a copy of the tree."""
    shutil.rmtree(copy, ignore_errors=True)
    for name in subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], text=True).splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        if Path(name).is_file():
            shutil.copyfile(name, copy / name)
    os.environ |= {"PYTHONPATH": str(copy / "src"), "JAX_COMPILATION_CACHE_DIR": str(arguments.work / "compiled")}
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.chdir(copy)
    sound: dict[str, bool] = {}
    for size in range(1, arguments.sample + 1):
        for module in modules:
            tests = command(arguments.python, module)
            with use_db(database(module, arguments.work), WorkDB.Mode.open) as db:
                done = dict(db.results)
                for item in sample(db, module, arguments.seed, size):
                    before = done.get(item.job_id)
                    again = arguments.again and before and before.test_outcome == TestOutcome.SURVIVED
                    if before and not (again and size == arguments.sample):
                        continue
                    if tests not in sound:
                        sound[tests] = run_tests(tests, arguments.timeout)[0] == TestOutcome.SURVIVED
                    if not sound[tests]:
                        print(f"{module}: left out, its tests fail or take too long without any fault", flush=True)
                        break
                    result = mutate_and_test(item.mutations, tests, arguments.timeout)
                    db.set_result(item.job_id, result)
                    print(f"{module}: {result.test_outcome.value} {item.mutations[0].operator_name}", flush=True)


def report(modules: list[str], arguments: argparse.Namespace) -> None:
    """A table in Markdown, and every survivor as a diff."""
    survivors = []
    print("| module | faults | tried | noticed | share |\n|---|---:|---:|---:|---:|")
    for module in modules:
        with use_db(database(module, arguments.work), WorkDB.Mode.open) as db:
            done = dict(db.results)
            tried = [done[i.job_id] for i in sample(db, module, arguments.seed, arguments.sample) if i.job_id in done]
            missed = [result for result in tried if result.test_outcome == TestOutcome.SURVIVED]
            survivors += missed
            share = f"{1 - len(missed) / len(tried):.0%}" if tried else "-"
            print(f"| `{module}` | {db.num_work_items} | {len(tried)} | {len(tried) - len(missed)} | {share} |")
    print(*(f"\n{result.diff}" for result in survivors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("modules", nargs="*", help="of src/onward; all that are watched if none is named")
    parser.add_argument("--sample", type=int, default=15, help="faults a module (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="each in a copy of the tree")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for the tests of one fault (%(default)s)")
    parser.add_argument("--again", action="store_true", help="try once more what was not noticed")
    parser.add_argument("--report", action="store_true", help="run nothing, print what is known")
    parser.add_argument("--work", type=Path, default=HOME / "runs/mutants")
    parser.add_argument("--python", default=str(HOME / ".venv/bin/python"), help="of the tests")
    arguments = parser.parse_args()
    modules = arguments.modules or list(WATCHED)
    plugins.OPERATOR_PROVIDERS["core"] = Faults()
    os.chdir(HOME)
    arguments.work.mkdir(parents=True, exist_ok=True)
    arguments.work = arguments.work.resolve()
    for module in modules:
        database(module, arguments.work)
    if not arguments.report:
        shares = [modules[i :: arguments.processes] for i in range(arguments.processes)]
        jobs = [
            Process(target=work_through, args=(s, arguments, arguments.work / f"tree-{i}"))
            for i, s in enumerate(shares)
        ]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
    report(modules, arguments)


if __name__ == "__main__":
    main()
