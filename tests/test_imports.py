# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Which way imports flow among our modules, read from their source."""

import ast
import re

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

PYMC = Path(__file__).resolve().parent.parent / "pymc"

# From the bottom up. A module of a row imports from its own row and those before it. What is in no row
# continues a module of the release: for it, and for who imports it, "no cycle" is the rule.
ORDER = (
    "pymc._layer",
    "pymc._docstrings",
    "pymc._lazy",
    "pymc.argument_checks",
    "pymc.minibatch",
    "pymc.variational.configurable",
    "pymc.variational.number_inputs",
    "pymc.variational.minibatch_rv",
    "pymc.variational.vectorize",
    "pymc.variational.stable_logs",
    "pymc.variational.guides",
    "pymc.variational.objectives",
    "pymc.variational.schedules",
    "pymc.variational.updates",
    "pymc.variational.optimizer_base",
    "pymc.variational.optax_optimizers",
    "pymc.variational.optimizers",
    "pymc.variational.local_params",
    "pymc.variational.engine.step",
    "pymc.variational.engine.step_key",
    "pymc.variational.engine.saved_steps",
    "pymc.variational.engine.batch_feed",
    "pymc.variational.engine.drivers",
    "pymc.variational.engine.step_cache",
    "pymc.variational.engine.loop",
    "pymc.variational.posterior",
    "pymc.variational.approximation",
    "pymc.variational.fit_objective",
    "pymc.data_loading.sources",
    "pymc.data_loading",
    "pymc.variational.placeholders",
    "pymc.variational.fitting",
    "pymc.variational.approximations",
    "pymc.variational.inference",
    "pymc.variational.cluster",
    "pymc.variational.checkpoints",
    "pymc.variational.trainer",
)


def name_of(file: Path, root: Path) -> str:
    parts = file.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield what a module may import: of ``from a import b``, both ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from [node.module, *names]


def named(tree: ast.AST, modules: Collection[str]) -> Iterator[str]:
    """Yield the modules whose names are strings in a module, filled in or not.

    So an ``import_module("a.b")``, a ``LoadDispatch("a.b")`` and a ``load_late(..., {"a.b": ...})`` is an
    import of ``a.b``, wherever the string is handed on from, and ``f"a.{name}"`` one of all in ``a``. A
    string that something is compared to imports nothing, nor does the name of a logger.
    """
    for node in walk_without_names(tree):
        if isinstance(node, ast.Constant) and node.value in modules:
            yield str(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = (
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else r"[\w.]+"
                for part in node.values
            )
            if (pattern := "".join(parts)).startswith("pymc"):
                yield from (module for module in modules if re.fullmatch(pattern, module))


def runtime_imports(tree: ast.Module) -> ast.Module:
    """Return a module without what only type checkers import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return tree


def walk_without_names(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, but not into what is compared, the name of a logger, or the parts of a string."""
    is_logger = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger")
    if isinstance(node, ast.Compare) or is_logger:
        return
    yield node
    if not isinstance(node, ast.JoinedStr):
        for child in ast.iter_child_nodes(node):
            yield from walk_without_names(child)


def read_imports(root: Path) -> dict[str, set[str]]:
    """Return which of the modules below `root` each of them imports, in its functions too.

    ``from pymc import _layer`` counts as an import of ``pymc._layer`` and not of ``pymc``. A package that
    takes names over from its modules imports these, by whatever way; as who imports one of its modules does
    not count as importing the package, that alone makes no cycle.
    """
    files = {name_of(file, root): file for file in root.rglob("*.py")}
    graph = {}
    for name, file in files.items():
        tree = runtime_imports(ast.parse(file.read_text()))
        modules = files.keys() - {root.name}  # the name of a distribution too
        found = (set(imported(tree)) & files.keys()) | set(named(tree, modules))
        packages = {n for n in found if any(m.startswith(f"{n}.") for m in found)}
        graph[name] = found - packages - {name}
    return graph


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return modules that import each other in a ring, or nothing."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for other in sorted(graph[name]):
                if ring := walk(other, [*path, name]):
                    return ring
            done.add(name)
        return []

    for name in sorted(graph):
        if ring := walk(name, []):
            return ring
    return []


def row(name: str) -> int:
    rows = [i for i, r in enumerate(ORDER) if name == r or name.startswith(f"{r}.")]
    return rows[0] if rows else len(ORDER)


def test_each_row_is_of_a_module():
    names = read_imports(PYMC).keys()
    assert [name for name in ORDER if name not in names] == []


def test_no_cycle():
    assert find_cycle(read_imports(PYMC)) == []


def test_one_way():
    upward = [
        f"{name} imports {other}"
        for name, others in read_imports(PYMC).items()
        for other in others
        if row(name) < row(other) < len(ORDER)
    ]
    assert upward == []


LATE = {
    "at the top": "from pymc import a\n",
    "in a function": "def f():\n    from pymc import a\n",
    "by a string": "def f():\n    import_module('pymc.a')\n",
    "by a name": "NAME = 'pymc.a'\nimport_module(NAME)\n",
    "by a string that is filled in": "def f(name):\n    LoadDispatch(f'pymc.{name}')\n",
    "late": "load_late(globals(), {'pymc.a': ('x',)})\n",
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE.keys())
def test_a_cycle_is_found(tmp_path, late):
    root = tmp_path / "pymc"
    root.mkdir()
    root.joinpath("__init__.py").write_text("from pymc import a\n")
    root.joinpath("a.py").write_text("from pymc.b import x\n")
    root.joinpath("b.py").write_text("x = 1\n")
    assert find_cycle(read_imports(root)) == []
    root.joinpath("b.py").write_text("x = module == 'pymc.a'\n")
    assert find_cycle(read_imports(root)) == []
    root.joinpath("b.py").write_text(late)
    assert find_cycle(read_imports(root)) == ["pymc.a", "pymc.b", "pymc.a"]
