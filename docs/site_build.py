# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the site does beyond Sphinx's extensions: equations, links to the API, and notebooks."""

import ast
import re
import types

from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.util import logging

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = ROOT / "docs" / "api" / "index.rst"
LOGGER = logging.getLogger(__name__)

OF_THE_RELEASE = ("pymc.Inference", "pymc.compile_pymc")  # docstrings

# A name of PyMC in the text, with or without arguments
NAME = re.compile(r"(?:pm|pymc)\.((?:\w+\.)*\w+)(?:\(.*\))?", re.DOTALL)
INCLUDED = re.compile(
    r"^```\{literalinclude\} (\S+)\n:language: python\n:pyobject: (\w+)\n```$", re.MULTILINE
)


def public_names() -> list[str]:
    """Return the names that have a page of the API."""
    return re.findall(r"^   (pymc(?:\.\w+)+)$", PUBLIC.read_text(), re.MULTILINE)


def skip_member(
    app: Any, what: str, name: str, value: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out docstrings that Python gives to fields of a NamedTuple, and aliases of types."""
    if isinstance(value, types.GenericAlias):
        return True  # autodoc takes them for functions
    return True if (getattr(value, "__doc__", None) or "").startswith("Alias for field") else None


def check_example(
    app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Warn about a public name that shows no example: ``make docs`` fails on it."""
    if name in public_names() and name not in OF_THE_RELEASE and ">>>" not in "\n".join(lines):
        LOGGER.warning("the docstring of %s has no example", name)


def check_pages(app: Any) -> None:
    """Warn about a name that the patch adds to PyMC's namespace and that has no page."""
    tree = ast.parse(ROOT.joinpath("pymc", "__init__.py").read_text())
    added = {
        constant.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("load_late")
        for names in ast.walk(node)
        if isinstance(names, ast.Tuple)
        for constant in names.elts
        if isinstance(constant, ast.Constant)
    }
    if not added:
        LOGGER.warning("pymc/__init__.py loads no public name late")
    for name in sorted(added - {name.removeprefix("pymc.") for name in public_names()}):
        LOGGER.warning("pymc.%s has no page: add it to %s", name, PUBLIC.relative_to(ROOT))


def write_math(translator: Any, node: nodes.Element) -> None:
    """Write an equation as MathML, which browsers draw without a script."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    translator.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def link_names(app: Any, doctree: nodes.document) -> None:
    """Link each public name in the text to its page."""
    known = {name.removeprefix("pymc."): name for name in public_names()}
    for literal in list(doctree.findall(nodes.literal)):
        found = NAME.fullmatch(literal.astext())
        parents = nodes.reference, nodes.title, addnodes.pending_xref, addnodes.desc_signature
        above: Any = literal.parent
        while above is not None and not isinstance(above, parents):
            above = above.parent
        if above is None and found and found[1] in known:
            link = addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=known[found[1]],
                refdoc=app.env.docname,
                refexplicit=True,
                refwarn=True,
            )
            literal.replace_self(link)
            link += literal


def write_cells(app: Any, docname: str, content: list[str]) -> None:
    """Make the code that a notebook shows from ``examples/`` its cells, after one with all the rest."""
    text = content[0]
    if "file_format: mystnb" not in text:
        return
    page = Path(app.srcdir, docname).parent
    [path] = {match[1] for match in INCLUDED.finditer(text)}
    source = (page / path).read_text()
    shown = {match[2] for match in INCLUDED.finditer(text)}
    parts: dict[str, str] = {}
    rest = []
    lines = source.splitlines()
    for node in ast.parse(source).body:
        named = isinstance(node, ast.FunctionDef | ast.ClassDef)
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        code = "\n".join(lines[first - 1 : node.end_lineno])
        if named and node.name in shown:
            parts[node.name] = code
        elif not (named and node.name == "main" or ast.unparse(node).startswith("if __name__")):
            rest.append(code)
    setup = "\n".join(rest[1:])  # without the docstring
    text = INCLUDED.sub(lambda match: f"```{{code-cell}}\n{parts[match[2]]}\n```", text)
    content[0] = text.replace("{setup-of-example}", setup)


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("builder-inited", check_pages)
    app.connect("source-read", write_cells)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-docstring", check_example)
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True}
