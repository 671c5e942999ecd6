# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the site does beyond Sphinx's extensions: equations, links to the API, and notebooks."""

import ast
import re
import types

from pathlib import Path
from typing import Any

import nbformat

from docutils import nodes
from jupyter_cache import get_cache
from latex2mathml.converter import convert
from sphinx import addnodes
from sphinx.util import logging

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = ROOT / "docs" / "api" / "index.rst"
LOGGER = logging.getLogger(__name__)

OF_THE_RELEASE = ("pymc.Inference", "pymc.compile_pymc")  # docstrings

# A name of PyMC in the text, with or without arguments
NAME = re.compile(r"(?:pm|pymc)\.((?:\w+\.)*\w+)(?:\(.*\))?", re.DOTALL)
BACK = re.compile(r'<a class="viewcode-back"[^>]*>\[docs\]</a>')
INCLUDED = re.compile(
    r"^```\{literalinclude\} (\S+)\n:language: python\n(?::pyobject: (\w+)\n)?```$", re.MULTILINE
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
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }
    if not added:
        LOGGER.warning("pymc/__init__.py loads no public name late")
    for name in sorted(added - {name.removeprefix("pymc.") for name in public_names()}):
        LOGGER.warning("pymc.%s has no page: add it to %s", name, PUBLIC.relative_to(ROOT))


def write_math(translator: Any, node: nodes.Element) -> None:
    """Write an equation as MathML, which browsers draw without a script."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    equation = convert(node.astext(), display=display)
    if display == "block":  # a wide one scrolls, by keys too
        equation = f'<div class="equation" tabindex="0">{equation}</div>'
    translator.body.append(equation)
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


def add_anchors_of_errors(app: Any, doctree: nodes.document) -> None:
    """Give each row of the table of errors an anchor, ``error-`` and its message, and a link to it."""
    if app.env.docname != "explanation/errors":
        return
    for row in doctree.findall(nodes.row):
        messages = list(row[0].findall(nodes.literal))
        if not messages or row.parent.parent.parent.next_node(nodes.entry).astext() != "message":
            continue
        anchor = "error-" + re.sub(r"[^a-z0-9]+", "-", messages[0].astext().lower()).strip("-")
        row["ids"].append(anchor)
        label = "Link to this error"
        link = f'<a class="headerlink" href="#{anchor}" title="{label}" aria-label="{label}">#</a>'
        row[0][-1].append(nodes.raw("", link, format="html"))


def write_cells(app: Any, docname: str, content: list[str]) -> None:
    """Make cells of a notebook of the code that it includes from ``examples/``.

    A module that is included without ``:pyobject:`` is what the page shows nowhere else: imports, constants
    and helpers.
    """
    text = content[0]
    if not text.startswith("---\nfile_format: mystnb\n"):
        return
    page = Path(app.srcdir, docname)
    [path] = {page.parent / found[1] for found in INCLUDED.finditer(text)}
    app.env.note_dependency(str(path.resolve()), docname=docname)
    source = path.read_text()
    lines = source.splitlines()
    shown = [found[2] for found in INCLUDED.finditer(text) if found[2]]
    of_name: dict[str | None, str] = {}
    rest = []
    for node in ast.parse(source).body[1:]:  # without the docstring
        decorators = [d.lineno for d in getattr(node, "decorator_list", ())]
        code = "\n".join(lines[min([node.lineno, *decorators]) - 1 : node.end_lineno])
        name = getattr(node, "name", "main" if isinstance(node, ast.If) else None)
        used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}.intersection(shown)
        if name in shown:
            of_name[name] = f"```{{code-cell}}\n{code}\n```"
        elif name is None and used:  # a constant: in the cell of the last function that it needs
            last = max(used, key=shown.index)
            of_name[last] = of_name[last].removesuffix("```") + f"\n\n{code}\n```"
        elif name != "main":
            rest.append(code if name is None else f"\n\n{code}")
    code = "\n".join(rest)
    of_name[None] = f"```{{code-cell}}\n:tags: [hide-input]\n\n{code}\n```"
    content[0] = INCLUDED.sub(lambda found: of_name[found[2]], text)


def remove_links_of_source(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Remove the links from a page of source to the API: viewcode knows one name of a module, and ours have two."""
    if pagename.startswith("_modules/"):
        context["body"] = BACK.sub("", context["body"])


def write_outputs(app: Any, doctree: nodes.document) -> None:
    """Write the outputs of a notebook into its download: MyST-NB leaves out those from its cache."""
    path = Path(app.outdir).parent / "jupyter_execute" / f"{app.env.docname}.ipynb"
    if path.is_file():
        cache = get_cache(app.config.nb_execution_cache_path)
        _, notebook = cache.merge_match_into_notebook(nbformat.read(path, as_version=4))
        nbformat.write(notebook, path)


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("builder-inited", check_pages)
    app.connect("source-read", write_cells)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-docstring", check_example)
    app.connect("html-page-context", remove_links_of_source)
    app.connect("doctree-read", link_names)
    app.connect("doctree-read", write_outputs)
    app.connect("doctree-read", add_anchors_of_errors)
    return {"parallel_read_safe": True}
