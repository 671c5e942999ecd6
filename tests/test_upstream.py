# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""The overlay is a patch: each override has one form, and PyMC's tree with all of them is the same PyMC."""

import ast
import json
import os
import subprocess
import sys

from pathlib import Path

import pytest

from pymc import _layer
from scripts.upstream.letter import cover_letter, table
from scripts.upstream.modules import Shadow
from scripts.upstream.other import changes, missing
from scripts.upstream.overrides import NotMergeableError, Override
from scripts.upstream.series import BY_HAND, Series
from scripts.upstream.source import Edit, Source, apply, bound, read_first
from scripts.upstream.tree import Tree, leftovers
from tests.conformance import ROOT, fetch_release

#: Overrides that do not name the old one, and why there is no guard or hook in their place.
REPLACED = {
    "__all__": "callbacks has a new name",
    "MeanField": "an approximation by a guide; the group is made only when it is asked for",
    "FullRank": "as MeanField",
    "Empirical": "as MeanField",
    "Group.symbolic_sample_over_posterior": "a vectorised graph in place of a Scan",
    "Approximation.symbolic_sample_over_posterior": "as that of Group",
    "MinibatchRandomVariable.make_node": "takes the inputs of another node",
    "ModelVar.__init__": "takes axes without names",
    "OrderedLogistic.compute_p": "another formula",
    "Potential": "the function of pymc.dims has one line, in which an argument is new",
    "SVGD.__init__": "an argument is new in the call in its middle",
    "fit": "methods are guides with objectives",
    "get_scaling": "the ratio is an Op, which rewrites and guards find",
    "remove_minibatched_nodes": "remove_minibatch has another name for it",
}


@pytest.fixture(scope="module")
def series() -> Series:
    return Series(ROOT)


@pytest.fixture(scope="module")
def tree(series: Series, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Return PyMC's tree with the whole overlay in it."""
    folder = tmp_path_factory.mktemp("upstream")
    tree = Tree.copy_of(fetch_release(), folder / "tree", series)
    tree.merge()
    return tree


# The overlay


def test_each_override_has_one_form(series: Series) -> None:
    """A guard and then the old one, or the old one and then more; it is named once, and never in a branch."""
    refused, replaced = [], set()
    for name in series.shadows:
        theirs = Source(_layer.RELEASE.joinpath(name).read_text())
        ours, by_hand = Source(series.files[name]), BY_HAND.get(name, {})
        shadow = Shadow(name, ours, theirs, has=lambda module, name: True, by_hand=by_hand)
        shadow.merge()
        refused += shadow.refused
        replaced |= {override for form, override in shadow.forms if form == "replaced"}
    assert refused == []
    assert replaced == REPLACED.keys()


def test_the_release_is_named_in_shadow_modules_only(series: Series) -> None:
    users = []
    for name in series.new:
        nodes = list(ast.walk(ast.parse(series.files[name])))
        names = {n.id for n in nodes if isinstance(n, ast.Name)}
        names |= {
            alias.name
            for n in nodes
            for alias in getattr(n, "names", ())
            if n is not None and isinstance(n, ast.ImportFrom)
        }
        if names & {"released", "_layer", "extends_docstring"}:
            users.append(name)
    assert users == []


def test_parts_import_what_is_there(series: Series) -> None:
    """A module imports at its top only from its own part of the series, and from those before."""
    wrong = []
    for name in series.new:
        for node in ast.parse(series.files[name]).body:
            if not isinstance(node, ast.ImportFrom):
                continue
            file = str(node.module).removeprefix("pymc.").replace(".", "/") + ".py"
            if file in series.new and series.part_of(file) > series.part_of(name):
                wrong.append(
                    f"{name} imports {file}, of a later part of scripts/upstream/series.py"
                )
    assert wrong == []


# The tree


def test_nothing_of_the_overlay_is_left(tree: Tree) -> None:
    assert tree.refused == []
    assert leftovers(tree.folder) == []


def test_tree_is_clean_by_the_rules_of_pymc(tree: Tree) -> None:
    assert tree.findings() == []


def test_tree_imports_without_the_overlay(tree: Tree) -> None:
    done = tree.run(
        "import sys, pymc as pm; print(pm.__file__, pm.__version__, 'pymc._layer' in sys.modules)"
    )
    version = tree.release.name.removeprefix("pymc-")
    assert done.stdout.split() == [str(tree.folder / "pymc/__init__.py"), version, "False"], (
        done.stderr
    )


@pytest.mark.slow
def test_fits_have_the_same_bits(tree: Tree) -> None:
    fits = Path(__file__).with_name("same_fits.py")
    environment = {**os.environ, "PYTENSOR_FLAGS": "mode=FAST_COMPILE,cxx="}
    ours = subprocess.run([sys.executable, fits], env=environment, capture_output=True, text=True)
    theirs = tree.run(fits.read_text(), PYTENSOR_FLAGS="mode=FAST_COMPILE,cxx=")
    assert ours.returncode == 0 == theirs.returncode, ours.stderr + theirs.stderr
    here, there = json.loads(ours.stdout), json.loads(theirs.stdout)
    assert here.pop("pymc") != there.pop("pymc")
    assert len(set(here.values())) == 5
    assert here == there


# Forms


def merged(old: str, new: str) -> str:
    """Merge a function of the release and its override; both named `f`."""
    theirs, ours = Source(old), Source(new)
    is_old = lambda node: ast.unparse(node) == "released.f"  # noqa: E731
    return Override("f", theirs.tree.body[0], ours.tree.body[0], theirs, ours, is_old).merge()[1]  # type: ignore[arg-type]


OLD = 'def f(a, b=1):\n    """Add."""\n    c = a + b\n    return c\n'


@pytest.mark.parametrize(
    ("new", "body"),
    [
        ("def f(a, b=1):\n    check(a)\n    return released.f(a, b)\n", "    check(a)\n    c = a + b\n    return c\n"),
        ("def f(a, b=1):\n    return released.f(g(a), b)\n", "    a = g(a)\n    c = a + b\n    return c\n"),
        ("def f(a, b=1):\n    d = released.f(a, b)\n    return d + 1\n", "    c = a + b\n    d = c\n    return d + 1\n"),
        ("def f(a, b=1):\n    c = released.f(a, b)\n    return c + 1\n", "    c = a + b\n    return c + 1\n"),
        ("def f(a, **kwargs):\n    use(kwargs.get('b'))\n    return released.f(a, **kwargs)\n", "    use(b)\n    c = a + b\n    return c\n"),
    ],
    ids=["guard", "argument", "more", "same name", "keyword"],
)  # fmt: skip
def test_override_becomes_a_change(new: str, body: str) -> None:
    assert merged(OLD, new) == f'def f(a, b=1):\n    """Add."""\n{body}'


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ("def f(a, b=1):\n    if a:\n        return released.f(a, b)\n", "calls the old one in a branch"),
        ("def f(a, b=1):\n    return 1 + released.f(a, b)\n", "in a branch or an expression"),
        ("def f(a, b=1):\n    g = released.f\n    return released.f(a, b)\n", "names the old one 2 times"),
        ("def f(a, b=1):\n    d = released.f(a, b)\n    return d + c\n", "reads c after the old one"),
        ("def f(a, b=1):\n    return released.f(b, a)\n", "lets arguments of the old one change places"),
    ],
    ids=["branch", "expression", "twice", "name", "places"],
)  # fmt: skip
def test_other_forms_are_refused(new: str, why: str) -> None:
    with pytest.raises(NotMergeableError, match=why):
        merged(OLD, new)


def test_early_return_is_refused() -> None:
    old = "def f(a):\n    if a:\n        return 1\n    return 2\n"
    with pytest.raises(NotMergeableError, match="returns early"):
        merged(old, "def f(a):\n    b = released.f(a)\n    return b + 1\n")
    with pytest.raises(NotMergeableError, match="binds g, global names of the old body"):
        merged("def f(a):\n    return g(a)\n", "def f(a):\n    g = 1\n    return released.f(a)\n")


def test_branches_for_none_go() -> None:
    old = "def f(a, b=None):\n    if b is not None:\n        use(b)\n    return a\n"
    new = "def f(a, b=None):\n    check(b)\n    return released.f(a, None)\n"
    assert merged(old, new) == "def f(a, b=None):\n    check(b)\n    return a\n"


def test_names_and_edits() -> None:
    body = ast.parse("a = [x for x in b]\nfor c in d:\n    e = c\nprint(e, a)").body
    assert bound(body) == {"a", "c", "e"}
    assert read_first(body) == {"b", "d", "e", "print"}
    text = "abcdef"
    assert apply(text, [Edit(3, 3, "-"), Edit(0, 2, "x"), Edit(1, 2, "y")]) == "xc-def"
    with pytest.raises(ValueError, match="changes overlap"):
        apply(text, [Edit(0, 2, "x"), Edit(1, 3, "y")])


# The letter


def test_letter_has_the_tables_of_the_documentation() -> None:
    letter = cover_letter(ROOT, "PyMC 6.4.0", "3 files changed")
    assert "on PyMC 6.4.0" in letter and "3 files changed." in letter
    assert "| no `total_size` |" in letter
    assert "1. Fix ordered logistic" in letter
    assert "mean-field" in letter
    with pytest.raises(ValueError, match=r"has no table whose first column is 'absent'"):
        table(ROOT / "README.md", "absent")


# Another PyMC


def test_changes_of_another_pymc_are_said_in_words() -> None:
    old = "from m import h\ndef f(a):\n    return a\ndef g(a):\n    return a\nclass C:\n    def m(self):\n        return 1\n"
    new = "def f(a, b):\n    return a\nclass C:\n    def m(self):\n        return 2\n"
    forms = {"f": "guard", "g": "more", "C.m": "guard", "ours": "added"}
    assert list(changes(old, old, forms)) == []
    assert list(changes(old, new, {"C.m": "decorator"})) == []
    assert list(changes(old, new, forms)) == [
        "f has the parameters (a, b), and had (a). Give the override the same.",
        "g is gone. Find what took its place, and override that.",
        "the body of C.m has changed. Read whether the override still does what it should.",
    ]
    assert list(missing("released.h(released.f)", old, new)) == [
        "released.h is gone. Import it from where it is now, or do without."
    ]
