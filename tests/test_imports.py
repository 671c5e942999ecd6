#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.

"""Which way imports flow among our modules, read from their source."""

import ast

from collections.abc import Iterator
from pathlib import Path

import pytest

PYMC = Path(__file__).resolve().parent.parent / "pymc"

# From the bottom up. A module of a row imports from its own row and those before it. What is in no row
# continues a module of the release: for it, and for who imports it, "no cycle" is the rule.
ORDER = (
    "pymc._layer",
    "pymc.minibatch",
    "pymc.variational.guides",
    "pymc.variational.objectives",
    "pymc.variational.rows",
    "pymc.variational.engine.step",
    "pymc.variational.engine.drivers",
    "pymc.variational.engine.compiled",
    "pymc.variational.engine.loop",
    "pymc.variational.posterior",
    "pymc.variational.guided",
    "pymc.variational.streaming.sources",
    "pymc.variational.streaming.loading",
    "pymc.variational.streaming",
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


def read_imports(root: Path) -> dict[str, set[str]]:
    """Return which of the modules below `root` each of them imports, in its functions too.

    ``from pymc import _layer`` counts as an import of ``pymc._layer`` and not of ``pymc``.
    """
    files = {name_of(file, root): file for file in root.rglob("*.py")}
    graph = {}
    for name, file in files.items():
        found = set(imported(ast.parse(file.read_text()))) & files.keys()
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


@pytest.mark.parametrize("lazily", [False, True])
def test_a_cycle_is_found(tmp_path, lazily):
    root = tmp_path / "pymc"
    root.mkdir()
    root.joinpath("__init__.py").write_text("from pymc import a\n")
    root.joinpath("a.py").write_text("from pymc.b import x\n")
    root.joinpath("b.py").write_text("x = 1\n")
    assert find_cycle(read_imports(root)) == []
    late = "def f():\n    from pymc import a\n" if lazily else "from pymc import a\n"
    root.joinpath("b.py").write_text(late)
    assert find_cycle(read_imports(root)) == ["pymc.a", "pymc.b", "pymc.a"]
