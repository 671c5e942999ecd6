# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Source text with its syntax tree: find the text of nodes, and change it without touching the rest."""

import ast

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


class Edit(NamedTuple):
    """A part of a text, and what takes its place."""

    start: int
    end: int
    text: str


class Source:
    """The text of a module and its tree."""

    def __init__(self, text: str) -> None:
        self.text, self.tree = text, ast.parse(text)
        self.lines = text.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def offset(self, line: int, column: int) -> int:
        """Return the place of a line, from 1, and a column in bytes, as nodes have them."""
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def span(self, node: ast.expr | ast.stmt | ast.arg) -> tuple[int, int]:
        assert node.end_lineno is not None and node.end_col_offset is not None
        start = self.offset(node.lineno, node.col_offset)
        return start, self.offset(node.end_lineno, node.end_col_offset)

    def block(self, node: ast.stmt) -> tuple[int, int]:
        """Return the lines of a statement, with its decorators and the comments above it."""
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        above = first
        while above > 1 and self.lines[above - 2].lstrip().startswith("#"):
            above -= 1
        if above > 1:  # else they are the licence
            first = above
        assert node.end_lineno is not None
        return self.starts[first - 1], self.starts[node.end_lineno]

    def end(self, node: ast.stmt) -> int:
        return self.block(node)[1]

    def get(self, place: tuple[int, int], edits: Iterable[Edit] = ()) -> str:
        """Return a part of the text, with the changes that lie in it."""
        start, end = place
        inside = [e for e in edits if start <= e.start and e.end <= end]
        return apply(self.text[:end], inside)[start:]


def apply(text: str, edits: Iterable[Edit]) -> str:
    """Apply changes in the order of their places; of nested ones, the outer one."""
    parts, here = [], 0
    for start, end, new in sorted(edits, key=lambda e: (e.start, e.start != e.end, -e.end)):
        if start >= here:
            parts += [text[here:start], new]
            here = end
        elif end > here:
            raise ValueError(f"changes overlap at {text[start : start + 60]!r}")
    return "".join(parts) + text[here:]


def definitions(body: Iterable[ast.stmt]) -> dict[str, ast.stmt]:
    """Return the last statement that defines each name."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, (*FUNCTION, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update({t.id: node for t in targets if isinstance(t, ast.Name)})
    return found


def imports(body: Iterable[ast.stmt]) -> dict[str, ast.Import | ast.ImportFrom]:
    """Return the statement that imports each name."""
    nodes = [n for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name: node for node in nodes for alias in node.names}


def has_docstring(node: Function | ast.ClassDef | ast.Module) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def without_docstring(node: Function | ast.ClassDef | ast.Module) -> list[ast.stmt]:
    return node.body[1:] if has_docstring(node) else node.body


def parameters(function: Function) -> list[ast.arg]:
    """Return the parameters that have names, without ``self`` and ``cls``."""
    args = function.args
    return [a for a in (*args.posonlyargs, *args.args, *args.kwonlyargs) if a.arg not in SELF]


SELF = ("self", "cls")


def scope(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Walk statements, but not into the functions and classes that they define."""
    for node in nodes:
        yield node
        if not isinstance(node, (*FUNCTION, ast.Lambda, ast.ClassDef)):
            yield from scope(ast.iter_child_nodes(node))


def bound(nodes: Iterable[ast.stmt]) -> set[str]:
    """Return the names that statements bind."""
    found = set()
    for node in scope(nodes):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (*FUNCTION, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
    return found - _of_comprehensions(nodes)


def _of_comprehensions(nodes: Iterable[ast.stmt]) -> set[str]:
    """Return names that only comprehensions bind, each in a scope of its own."""
    nodes = list(nodes)
    targets = [n.target for top in nodes for n in ast.walk(top) if isinstance(n, ast.comprehension)]
    inner = [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    places = {id(n) for n in inner}
    outer = {
        n.id
        for n in scope(nodes)
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and id(n) not in places
    }
    return {n.id for n in inner} - outer


def read(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names that nodes read, those of comprehensions apart."""
    found = set()
    for top in nodes:
        own = _of_comprehensions([top]) if isinstance(top, ast.stmt) else set()
        loads = (
            n for n in ast.walk(top) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
        )
        found |= {n.id for n in loads} - own
    return found


def read_first(body: Iterable[ast.stmt], known: Iterable[str] = ()) -> set[str]:
    """Return the names that statements may read before they bind them."""
    found, mine = set(), set(known)
    for node in body:
        if isinstance(node, ast.For):
            found |= read([node.iter]) - mine
            target = {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
            found |= read_first([*node.body, *node.orelse], mine | target)
        elif isinstance(node, ast.If):
            found |= read([node.test]) - mine
            found |= read_first(node.body, mine) | read_first(node.orelse, mine)
        else:
            found |= read([node]) - mine
            if isinstance(node, ast.Assign):
                mine |= {n.id for t in node.targets for n in ast.walk(t) if _is_stored(n)}  # type: ignore[attr-defined]
    return found


def _is_stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
