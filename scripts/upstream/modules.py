# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A module that continues one of the release, merged into the release's file.

The merged file is the release's, with the smallest changes that do what the overlay does: decorators,
statements at the beginning or the end of functions, new methods and base classes, imports in place of
definitions, and new definitions.
"""

import ast

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from scripts.upstream.overrides import (
    NotMergeableError,
    Override,
    as_in_tree,
    merged_docstring,
    overlay_edits,
)
from scripts.upstream.source import (
    FUNCTION,
    Edit,
    Source,
    apply,
    definitions,
    has_docstring,
    imports,
    read,
    without_docstring,
)

RUN = "_layer.run_release("


def is_shadow(text: str) -> bool:
    """Return whether a module continues one of the release."""
    return RUN in text


@dataclass
class Shadow:
    """A shadow module and the file that it continues.

    Parameters
    ----------
    name : str
        Path of both below ``pymc/``.
    ours, theirs : Source
    has : callable (module, name) -> bool
        Whether the tree has a module, or a name in it.
    methods : mapping of str to set of str
        By name of a class in other modules of ours: its methods.
    takes : callable (name) -> bool
        Which overrides to merge, such as ``"fit"`` or ``"Model.logp"``; all by default.
    by_hand : mapping of str to (str, str)
        By name of an override: a part of the old function, and what takes its place.
    """

    name: str
    ours: Source
    theirs: Source
    has: Callable[[str, str | None], bool]
    methods: Mapping[str, set[str]] = field(default_factory=dict)
    takes: Callable[[str], bool] = lambda name: True
    by_hand: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    forms: list[tuple[str, str]] = field(default_factory=list)  # of each override: form, name
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.old = definitions(self.theirs.tree.body)
        self.old_imports = imports(self.theirs.tree.body)
        self.mixins: dict[str, list[str]] = {}  # classes of the release by the mixin of them
        self.body = without_docstring(self.ours.tree)
        for node in self.body:
            call = getattr(node, "value", None)
            if isinstance(call, ast.Call) and ast.unparse(call).startswith(RUN):
                self.run = node
                for word in call.keywords:
                    self.mixins.setdefault(ast.unparse(word.value), []).append(word.arg or "")
        self.edits: list[Edit] = []
        self.new_imports: list[str] = []
        self.late: list[str] = []  # at the end of the module
        self.first: list[str] = []  # what is new before the first override
        self.at: int | None = None  # where what is new goes

    def merge(self) -> str:
        """Return the text of the merged module, and note the form of each override."""
        for node in self.body:
            text = ast.unparse(node)
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.add_import(node)
            elif node is self.run or "_layer." in text:
                pass  # of the overlay
            elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                self.add_type_imports(node)
            elif text.startswith("_lazy."):
                self.late.append(self.late_names(node))
            else:
                self.add(node)
        defined = {node.name for node in self.body if isinstance(node, ast.ClassDef)}
        for mixin in self.mixins.keys() - defined:  # those that are imported
            for name in self.mixins[mixin]:
                old = self.old[name]
                assert isinstance(old, ast.ClassDef)
                self.add_imported_base(old, mixin, ())
        if self.first:
            place = self.at if self.at is not None else len(self.theirs.text)
            self.edits.append(Edit(place, place, "\n\n" + "\n\n".join(self.first)))
        if self.new_imports:
            place = self.end_of_imports()
            self.edits.append(Edit(place, place, "".join(self.new_imports)))
        text = apply(self.theirs.text, self.edits)
        return text + "".join(f"\n{part}" for part in self.late)

    # Definitions

    def add(self, node: ast.stmt) -> None:
        """Merge a statement that defines something, or one that calls."""
        name = next(iter(definitions([node])), None)
        if name in self.mixins and isinstance(node, ast.ClassDef):
            for mixed in self.mixins[name]:
                self.anchor(self.old[mixed])
                self.merge_class(self.old[mixed], node)
        elif name is None or name not in self.old:
            if self.takes(name or "") and not _is_of_types(node):
                self.put(node)
        elif _is_same(node, name) or not self.takes(name):
            pass
        else:
            self.anchor(self.old[name])
            self.override(name, self.old[name], node)

    def override(self, name: str, old: ast.stmt, node: ast.stmt) -> None:
        if isinstance(node, ast.ClassDef) and isinstance(old, ast.ClassDef):
            if f"released.{name}" in map(ast.unparse, node.bases):
                self.merge_class(old, node)
                return
            self.note("replaced", name)
        elif isinstance(node, FUNCTION) and isinstance(old, FUNCTION):
            self.function(name, old, node, f"released.{name}")
            return
        elif decorator := _decorator(node, name):
            start = self.theirs.span(old)[0]
            for other in getattr(old, "decorator_list", ()):
                start = min(start, self.theirs.span(other)[0] - 1)
            text = as_in_tree(
                self.ours.get(self.ours.span(decorator), overlay_edits(self.ours, decorator))
            )
            self.edits.append(Edit(start, start, f"@{text}\n"))
            self.note("decorator", name)
            return
        elif ast.unparse(node) == ast.unparse(old):
            return  # made anew in the overlay, from functions that it has decorated
        else:
            self.note("replaced", name)
        self.edits.append(Edit(*self.theirs.block(old), self.text(node)))

    def function(self, name: str, old: ast.stmt, new: ast.stmt, called: str) -> None:
        assert isinstance(old, FUNCTION) and isinstance(new, FUNCTION)
        if name in self.by_hand:
            before, after = self.by_hand[name]
            place = self.theirs.block(old)
            text = self.theirs.get(place)
            if before not in text:
                self.refused.append(f"pymc/{self.name}: {name} has no {before!r} any more.")
            self.edits.append(Edit(*place, text.replace(before, after)))
            self.note("by hand", name)
            return
        is_old: Callable[[ast.expr], bool] = lambda n: ast.unparse(n) == called  # noqa: E731
        try:
            form, text = Override(name, old, new, self.theirs, self.ours, is_old).merge()
        except NotMergeableError as error:
            self.refused.append(f"pymc/{self.name}: {error}")
            return
        self.note(form, name)
        self.edits.append(Edit(*self.theirs.block(old), text))

    def merge_class(self, old: ast.stmt, new: ast.ClassDef) -> None:
        """Merge the methods of a mixin, or of a subclass that takes the old one's name."""
        assert isinstance(old, ast.ClassDef)
        has, new_methods = definitions(old.body), definitions(new.body)
        if has_docstring(new) and new.name == old.name and self.takes(old.name):
            self.edits.append(Edit(*self.theirs.block(old.body[0]), merged_docstring(old, new)))
        for base in map(ast.unparse, new.bases):
            if not base.startswith("released."):
                self.add_imported_base(old, base, new_methods.keys())
        added, attributes = [], ""
        for node in without_docstring(new):
            name = next(iter(definitions([node])), "")
            full = f"{old.name}.{name}"
            if (isinstance(node, ast.AnnAssign) and node.value is None) or not self.takes(full):
                continue
            if isinstance(node, FUNCTION) and name in has:
                self.function(full, has[name], node, f"super().{name}")
            elif isinstance(node, FUNCTION):
                added.append(self.text(node))
                self.note("added", full)
            else:
                attributes += self.text(node)
                self.note("added", full)
        if attributes:
            place = self.theirs.block(without_docstring(old)[0])[0]
            self.edits.append(Edit(place, place, attributes + "\n"))
        if added:
            place = self.theirs.end(old)
            self.edits.append(Edit(place, place, "\n" + "\n".join(added)))

    def add_imported_base(self, old: ast.ClassDef, name: str, kept: Collection[str]) -> None:
        """Add a base class of ours; the methods that it has go from the class, but for those to be kept."""
        if not self.takes(f"{old.name}({name})"):
            return
        has = definitions(old.body)
        for method in sorted(self.methods.get(name, set()) & has.keys() - set(kept)):
            self.edits.append(Edit(*self.theirs.block(has[method]), ""))
            self.note("in the base", f"{old.name}.{method}")
        if old.bases:
            place = self.theirs.span(old.bases[0])[0]
            self.edits.append(Edit(place, place, f"{name}, "))
        else:
            place = self.theirs.offset(old.lineno, old.col_offset) + len(f"class {old.name}")
            self.edits.append(Edit(place, place, f"({name})"))
        self.note("base", f"{old.name}({name})")

    def put(self, node: ast.stmt) -> None:
        """Add what is new: after the override before it, and after what it needs when it is imported."""
        needed = [self.theirs.end(self.old[n]) for n in _needed_at_import(node) if n in self.old]
        place = max([*needed, *([] if self.at is None else [self.at])], default=None)
        if place is None:
            self.first.append(self.text(node))
            return
        self.at = place
        self.edits.append(Edit(place, place, f"\n\n{self.text(node)}"))

    def anchor(self, old: ast.stmt) -> None:
        if self.first:
            place = self.theirs.block(old)[0]
            self.edits.append(Edit(place, place, "\n\n".join(self.first) + "\n\n"))
            self.first = []
        self.at = self.theirs.end(old)

    def text(self, node: ast.stmt) -> str:
        return as_in_tree(self.ours.get(self.ours.block(node), overlay_edits(self.ours, node)))

    def note(self, form: str, name: str) -> None:
        self.forms.append((form, name))

    # Imports

    def add_import(self, node: ast.Import | ast.ImportFrom) -> None:
        text = ast.unparse(node)
        if "_layer" in text or "_docstrings" in text:
            return
        module = _module(node)
        kept = []
        for alias in node.names:
            name = alias.asname or alias.name
            if _is_ours(module) and not self.has(str(module), alias.name):
                continue
            is_moved = name in self.old or node.lineno > self.run.lineno
            if is_moved and not self.takes(name):
                continue
            if name in self.old:
                self.edits.append(Edit(*self.theirs.block(self.old[name]), ""))
                self.note("moved", name)
            elif name in self.old_imports:
                if node.lineno < self.run.lineno or _module(self.old_imports[name]) == module:
                    continue
                self.drop_import(name)
                self.note("moved", name)
            kept.append(alias)
        if not kept:
            return
        said = as_in_tree(self.ours.get(self.ours.block(node)))
        if len(kept) < len(node.names) and isinstance(node, ast.ImportFrom):
            said = ast.unparse(ast.ImportFrom(node.module, kept, node.level)) + "\n"
        is_last = node.lineno > self.run.lineno and self.name.endswith("__init__.py")
        (self.late if is_last else self.new_imports).append(said)

    def drop_import(self, name: str) -> None:
        node = self.old_imports[name]
        left = [alias for alias in node.names if (alias.asname or alias.name) != name]
        text = ""
        if left and isinstance(node, ast.ImportFrom):
            text = ast.unparse(ast.ImportFrom(node.module, left, node.level)) + "\n"
        self.edits.append(Edit(*self.theirs.block(node), text))

    def add_type_imports(self, node: ast.If) -> None:
        text = ""
        for said in node.body:
            if isinstance(said, ast.ImportFrom) and (
                not _is_ours(said.module) or self.has(str(said.module), None)
            ):
                names = [a for a in said.names if (a.asname or a.name) not in self.old_imports]
                kept = ast.ImportFrom(said.module, names, said.level)
                text += f"    {ast.unparse(kept)}\n" if names else ""
        if not text:
            return
        for old in self.theirs.tree.body:
            if isinstance(old, ast.If) and ast.unparse(old.test) == "TYPE_CHECKING":
                place = self.theirs.end(old)
                self.edits.append(Edit(place, place, text))
                return
        self.new_imports.append(f"if TYPE_CHECKING:\n{text}")

    def late_names(self, node: ast.stmt) -> str:
        """Return the statement that loads names late, of the modules that the tree has."""
        assert isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        table = node.value.args[1]
        assert isinstance(table, ast.Dict)
        edits = []
        for key, value in zip(table.keys, table.values):
            assert isinstance(key, ast.Constant)
            if not self.has(str(key.value), None):
                end = self.ours.starts[value.end_lineno or 0]
                edits.append(Edit(self.ours.starts[key.lineno - 1], end, ""))
        return "" if len(edits) == len(table.keys) else self.ours.get(self.ours.block(node), edits)

    def end_of_imports(self) -> int:
        ends = 0
        for node in self.theirs.tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                ends = self.theirs.end(node)
            elif ends:
                break
        return ends


def _module(node: ast.Import | ast.ImportFrom) -> str | None:
    return node.module if isinstance(node, ast.ImportFrom) else None


def _is_ours(module: str | None) -> bool:
    return module is not None and module.split(".")[0] == "pymc"


def _decorator(node: ast.stmt, name: str) -> ast.expr | None:
    """Return `wrap` of ``x = wrap(released.x)``."""
    call = getattr(node, "value", None)
    if isinstance(call, ast.Call) and not call.keywords:
        if [ast.unparse(argument) for argument in call.args] == [f"released.{name}"]:
            return call.func
    return None


def _is_same(node: ast.stmt, name: str) -> bool:
    """Return whether a statement is ``x = released.x``, which tells a type checker of it."""
    value = getattr(node, "value", None)
    return isinstance(value, ast.expr) and ast.unparse(value) == f"released.{name}"


def _is_of_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.AnnAssign) and node.value is None


def _needed_at_import(node: ast.stmt) -> set[str]:
    """Return the names that a statement reads when its module is imported."""
    parts: Iterable[ast.AST] = [node]
    if isinstance(node, FUNCTION):
        args = node.args
        all_args = (*args.posonlyargs, *args.args, *args.kwonlyargs)
        annotations = [a.annotation for a in all_args if a.annotation is not None]
        defaults = [*args.defaults, *(d for d in args.kw_defaults if d is not None)]
        returns = [node.returns] if node.returns is not None else []
        parts = [*node.decorator_list, *defaults, *annotations, *returns]
    elif isinstance(node, ast.ClassDef):
        inner = set().union(*map(_needed_at_import, node.body)) if node.body else set()
        return inner | _needed_names([*node.decorator_list, *node.bases])
    return _needed_names(parts)


def _needed_names(parts: Iterable[ast.AST]) -> set[str]:
    nodes = [n for part in parts for n in ast.walk(part)]
    attributes = [n for n in nodes if isinstance(n, ast.Attribute)]
    released = {n.attr for n in attributes if ast.unparse(n.value) == "released"}
    return released | read(parts)
