# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Another PyMC than the supported release: what its changes mean for the overlay, in words."""

import ast

from collections.abc import Iterator, Mapping
from pathlib import Path

from scripts.upstream.series import Series
from scripts.upstream.source import FUNCTION, definitions, parameters, without_docstring
from scripts.upstream.tree import Tree


def compare(series: Series, supported: Path, other: Path, folder: Path) -> list[str]:
    """Merge the overlay into another PyMC, and return what a person has to look at.

    Parameters
    ----------
    series : Series
    supported, other : Path
        The tree of the supported release, and that of the other PyMC.
    folder : Path
        Where to put the merged tree.
    """
    found = [
        f"pymc/{name}: the other PyMC has a file of this name. Rename ours, or continue it."
        for name in series.new
        if (other / "pymc" / name).exists()
    ]
    here = Tree.copy_of(supported, folder, series)
    here.merge()
    overridden = list(here.forms)
    gone = {name for name in series.shadows if not (other / "pymc" / name).is_file()}
    for name in sorted(gone):
        found.append(f"pymc/{name}: it is gone. Find where its contents went, and continue that.")
    for name in series.shadows:
        if name not in gone:
            old = supported.joinpath("pymc", name).read_text()
            new = other.joinpath("pymc", name).read_text()
            forms = {override: form for file, form, override in overridden if file == name}
            found += [f"pymc/{name}: {line}" for line in changes(old, new, forms)]
            found += [f"pymc/{name}: {line}" for line in missing(series.files[name], old, new)]
    there = Tree.copy_of(other, folder, series)
    try:
        there.merge(skip=gone)
    except (KeyError, ValueError) as error:
        found.append(f"The merge stops at {error}: change what is named above first.")
    return found + [f"{line} It does not merge any more." for line in there.refused]


def changes(old: str, new: str, forms: Mapping[str, str]) -> Iterator[str]:
    """Yield what has changed of the functions and classes that are overridden, by the forms of these."""
    before, after = _nodes(ast.parse(old)), _nodes(ast.parse(new))
    for name, form in forms.items():
        was, now = before.get(name), after.get(name)
        if was is None:
            continue  # ours alone
        if now is None:
            yield f"{name} is gone. Find what took its place, and override that."
        elif isinstance(was, FUNCTION) and isinstance(now, FUNCTION):
            if (first := _names(was)) != (second := _names(now)):
                yield f"{name} has the parameters {second}, and had {first}. Give the override the same."
            elif form != "decorator" and _code(was) != _code(now):
                yield f"the body of {name} has changed. Read whether the override still does what it should."


def missing(ours: str, old: str, new: str) -> Iterator[str]:
    """Yield the names of the release that ours uses, and the other PyMC does not have."""
    nodes = ast.walk(ast.parse(ours))
    attributes = (n for n in nodes if isinstance(n, ast.Attribute))
    used = {n.attr for n in attributes if ast.unparse(n.value) == "released"}
    for name in sorted(used & _bound(old) - _bound(new)):
        yield f"released.{name} is gone. Import it from where it is now, or do without."


def _nodes(tree: ast.Module) -> dict[str, ast.stmt]:
    """Return functions, classes and methods by their names."""
    found = definitions(tree.body)
    for name, node in list(found.items()):
        if isinstance(node, ast.ClassDef):
            found.update({f"{name}.{m}": n for m, n in definitions(node.body).items()})
    return found


def _names(function: ast.stmt) -> str:
    assert isinstance(function, FUNCTION)
    return "(" + ", ".join(a.arg for a in parameters(function)) + ")"


def _code(function: ast.stmt) -> list[str]:
    assert isinstance(function, FUNCTION)
    return [ast.unparse(node) for node in without_docstring(function)]


def _bound(text: str) -> set[str]:
    tree = ast.parse(text)
    names = {alias.asname or alias.name for n in tree.body for alias in getattr(n, "names", ())}
    return names | definitions(tree.body).keys()
