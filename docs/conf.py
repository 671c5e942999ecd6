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
sys.path.insert(0, str(ROOT / "docs"))

from site_build import public_names  # noqa: E402

project = "pymc-minibatch"
author = "The PyMC Developers"
project_copyright = f"2026 - present, {author}"
release = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["project"]["version"]

extensions = [
    "myst_nb",
    "numpydoc",
    "site_build",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
# numpydoc links an attribute by its bare name, which another class may have too
suppress_warnings = ["ref.python"]
exclude_patterns = ["_build", "_templates"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
extlinks = {"arxiv": ("https://arxiv.org/abs/%s", "arXiv:%s")}  # a role of PyMC's docstrings
nb_execution_mode = "cache"  # a notebook runs again when its code changes
nb_execution_cache_path = str(ROOT / ".cache" / "notebooks")
nb_execution_timeout = 1200
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_code_prompt_show = "Show imports and helpers"
nb_code_prompt_hide = "Hide imports and helpers"
nb_merge_streams = True
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say the types, with shapes
autodoc_preserve_defaults = True
autosummary_context = {
    "members": {
        "pymc.Inference": "fit, refine",
        "pymc.variational.auto.AutoInference": "fit, refine",
        "pymc.variational.auto.AutoApproximation": "sample",
        "pymc.Amortized": "distribution",
        "pymc.Source": "part_lengths, load, n_rows, layout, identity",
        "pymc.DataLoader": "chunks, columns, n_batches, n_rows, shard",
        "pymc.Loader": "batches, columns, has_row_numbers, identity, layout",
        "pymc.Trainer": "",
        "pymc.Optimizer": "init, update",
        "pymc.variational.checkpoints.best.ModelCheckpoint": "best",
        "pymc.variational.loggers.MetricLogger": "log, end",
        "pymc.variational.approximation.GuideApproximation": "sample, sample_chunks, summary, predict_to",
        "pymc.variational.diagnostics.Diagnosis": "",
    }
}
numpydoc_show_class_members = False
warnings.filterwarnings("ignore", "Unknown section .* Rewrites", UserWarning)  # of pymc.compile

html_theme = "pydata_sphinx_theme"
html_title = f"pymc-minibatch {release}"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_context = {"default_mode": "auto"}
html_math_renderer = "mathml"
# The project has no public host of its own, so that no page links to its source or to an editor there:
# the source of each public name is a page of the site.
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": f"pymc-minibatch {release}"},
    "navbar_end": ["theme-switcher"],
    "footer_end": [],
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_nav_level": 2,
}
html_sidebars: dict[str, list[str]] = {"index": []}


def write_modules_page() -> None:
    """Write a page of the new modules, without what has a page of its own, a section for each folder."""
    public = public_names()
    lines = ["Modules, for maintainers", "=" * 24, ""]
    folder = None
    for file in sorted(
        (ROOT / "pymc").rglob("*.py"), key=lambda f: (f.parent, f.name != "__init__.py", f)
    ):
        if "run_release" in file.read_text() or file.parent.name == "dispatch":
            continue  # a module of the release, or Ops registered with a backend
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if file.parent != folder:
            folder = file.parent
            title = str(folder.relative_to(ROOT))
            lines += [title, "-" * len(title), ""]
        lines += [name, "~" * len(name), "", f".. automodule:: {name}"]
        of_page = [p.rpartition(".")[2] for p in public if p.rpartition(".")[0] == name]
        excluded = ["DimShuffle", "State", *of_page]
        if file.name != "__init__.py":  # numpydoc cannot read the docstrings of these two
            lines += ["   :members:", f"   :exclude-members: {', '.join(excluded)}"]
        lines += ["", ""]
    page, text = ROOT / "docs" / "api" / "modules.rst", "\n".join(lines)
    if not page.exists() or page.read_text() != text:  # Sphinx reads what is new
        page.write_text(text)


def setup(app: Any) -> None:
    write_modules_page()
