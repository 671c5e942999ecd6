# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Sphinx settings: ``make docs``. Nothing is fetched while the pages are built."""

import sys
import tomllib
import warnings

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the pymc/ of this clone, before any that is installed

project = "pymc-minibatch"
author = "The PyMC Developers"
project_copyright = f"2026 - present, {author}"
release = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["project"]["version"]

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.extlinks",
]
exclude_patterns = ["_build"]

myst_heading_anchors = 3
extlinks = {"arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s")}  # a role of PyMC's docstrings

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say the types, with shapes
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
warnings.filterwarnings("ignore", "Unknown section .* Rewrites", UserWarning)  # of pymc.compile

html_theme = "alabaster"
html_title = f"pymc-minibatch {release}"
html_copy_source = False
html_theme_options = {
    "description": "Minibatches for variational inference in PyMC",
    "fixed_sidebar": True,
    "page_width": "1180px",
    "code_font_size": "0.8em",  # lines of 100 columns
    "sidebar_width": "240px",
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}


def skip_member(
    app: Any, what: str, name: str, value: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out the docstrings that Python gives to the fields of a NamedTuple."""
    return True if (getattr(value, "__doc__", None) or "").startswith("Alias for field") else None


def write_modules_page() -> None:
    """Write a page of the new modules that public.rst leaves out, a section for each folder."""
    public = (ROOT / "docs" / "api" / "public.rst").read_text().splitlines()
    lines = ["Modules, for maintainers", "=" * 24, ""]
    folder = None
    for file in sorted(
        (ROOT / "pymc").rglob("*.py"), key=lambda f: (f.parent, f.name != "__init__.py", f)
    ):
        if "run_release" in file.read_text() or file.parent.name == "dispatch":
            continue  # a module of the release, or Ops registered with a backend
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if f".. automodule:: {name}" in public:
            continue
        if file.parent != folder:
            folder = file.parent
            title = str(folder.relative_to(ROOT))
            lines += [title, "-" * len(title), ""]
        lines += [name, "~" * len(name), "", f".. automodule:: {name}"]
        if file.name != "__init__.py":  # numpydoc cannot read the docstrings of these two
            lines += ["   :members:", "   :exclude-members: DimShuffle, State"]
        lines += ["", ""]
    (ROOT / "docs" / "api" / "modules.rst").write_text("\n".join(lines))


def setup(app: Any) -> None:
    write_modules_page()
    app.connect("autodoc-skip-member", skip_member)
