# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The code of the documentation runs, and every public name is documented."""

import ast
import doctest
import importlib
import inspect
import re
import sys

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytensor
import pytest

import pymc as pm

from tests.variational.engine import JAX_COPIES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
API = DOCS.joinpath("api", "index.rst").read_text()

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)")
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

# What the patch adds to, or changes in, the namespace of PyMC
PUBLIC = {
    "pymc.Amortized": pm.Amortized,
    "pymc.DataLoader": pm.DataLoader,
    "pymc.IterableDataset": pm.IterableDataset,
    "pymc.Loader": pm.Loader,
    "pymc.LowRank": pm.LowRank,
    "pymc.Minibatch": pm.Minibatch,
    "pymc.NormalizingFlow": pm.NormalizingFlow,
    "pymc.Optimizer": pm.Optimizer,
    "pymc.Potential": pm.Potential,
    "pymc.Renyi": pm.Renyi,
    "pymc.ReweightedWakeSleep": pm.ReweightedWakeSleep,
    "pymc.Structured": pm.Structured,
    "pymc.Source": pm.Source,
    "pymc.Trainer": pm.Trainer,
    "pymc.adamw": pm.adamw,
    "pymc.arrow_source": pm.arrow_source,
    "pymc.compile_pymc": pm.compile_pymc,
    "pymc.fit": pm.fit,
    "pymc.load_approximation": pm.load_approximation,
    "pymc.minibatch_logp": pm.minibatch_logp,
    "pymc.minibatch_model": pm.minibatch_model,
    "pymc.parquet_source": pm.parquet_source,
    "pymc.remove_minibatch": pm.remove_minibatch,
    "pymc.shuffle_buffer": pm.shuffle_buffer,
}
# Dispatch by Op, with no names to call; those of a backend cannot be imported without it
PRIVATE = {
    *(f"pymc.minibatch.dispatch.{backend}" for backend in ("jax", "numba")),
    "pymc.variational.local_params.numba_dispatch",
}


def names_of(files: Iterable[Path]) -> set[str]:
    """Return the names of the modules in files."""
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in files
        if file.name == "__init__.py" or "run_release" not in file.read_text()
    }


# What is new, and not a continued module of the release
MODULES = sorted(
    names_of(
        file
        for part in ("minibatch", "data_loading", "variational")
        for file in (ROOT / "pymc" / part).rglob("*.py")
    )
    - {*PRIVATE, "pymc.variational"}
)


# Pages whose fits take longer as Python than to compile
COMPILED = ("how_to/auto.md", "how_to/first_fit.md")
COMPILED_MODE = pytensor.config.mode


@pytest.fixture(autouse=True)
def python_mode() -> Iterator[None]:
    """Run graphs as Python: to compile one takes longer than most examples run."""
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


def public_objects() -> dict[str, Any]:
    """Return the functions and classes in ``__all__`` of our modules, and in PyMC's namespace."""
    found = dict(PUBLIC)
    for name in MODULES:
        module = importlib.import_module(name)
        for attribute in getattr(module, "__all__", ()):
            value = getattr(module, attribute)
            if inspect.isroutine(value) or inspect.isclass(value):
                found[f"{name}.{attribute}"] = value
    return found


def examples_of(value: Any, name: str) -> list[doctest.DocTest]:
    """Return the examples of a docstring: of one that adds to the release's, those that it adds."""
    module = sys.modules[value.__module__]
    if hasattr(module, "released"):
        for node in ast.parse(inspect.getsource(module)).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name != value.__name__:
                continue
            if any("extends_docstring" in ast.unparse(d) for d in node.decorator_list):
                added = ast.get_docstring(node) or ""
                parser = doctest.DocTestParser()
                return [parser.get_doctest(added, dict(IMPORTED), name, None, None)]
    return FINDER.find(value, name, module=False, globs=dict(IMPORTED))


OBJECTS = public_objects()
OPTIONAL = ("optax",)  # blocks that import these are skipped where they are not installed
IMPORTED = {"np": np, "pm": pm}  # what an example may take as imported
FINDER = doctest.DocTestFinder(recurse=False)
EXAMPLES = {
    name: example
    for name, value in OBJECTS.items()
    for example in examples_of(value, name)
    if example.examples
}


def run_doctest(example: doctest.DocTest, clear_globs: bool = True) -> None:
    report: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=OPTIONS).run(
        example, out=report.append, clear_globs=clear_globs
    )
    assert not failed, "".join(report)


@pytest.mark.filterwarnings("ignore::Warning:bambi", "ignore::Warning:formulae", JAX_COPIES)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_page_runs(page: Path) -> None:
    """Run the blocks of a page one after another, in one namespace."""
    if str(page.relative_to(DOCS)) in COMPILED:
        pytensor.config.mode = COMPILED_MODE  # the fixture sets it back
    text = page.read_text()
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in BLOCK.finditer(text):
        code, line = block[1], text.count("\n", 0, block.start(1))
        if any(f"import {name}\n" in code and find_spec(name) is None for name in OPTIONAL):
            continue
        if code.startswith(">>>"):
            example = doctest.DocTestParser().get_doctest(
                code, namespace, page.name, str(page), line
            )
            run_doctest(example, clear_globs=False)
            namespace = example.globs
        else:  # with the line numbers of the page
            exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    missing = [to for to in LINK.findall(page.read_text()) if not (page.parent / to).exists()]
    assert missing == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_runs(name: str) -> None:
    run_doctest(EXAMPLES[name])


@pytest.mark.parametrize("name", sorted({*PUBLIC} - {"pymc.compile_pymc"}))
def test_public_function_has_an_example(name: str) -> None:
    assert name in EXAMPLES


@pytest.mark.parametrize("name", PUBLIC)
def test_public_function_is_on_an_api_page(name: str) -> None:
    assert f"\n   {name}\n" in API


def test_what_is_new_in_the_namespace_is_documented() -> None:
    tree = ast.parse(ROOT.joinpath("pymc", "__init__.py").read_text())
    added = {
        f"pymc.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "pymc"
        for alias in node.names
        if not inspect.ismodule(getattr(pm, alias.name))
    }
    assert added
    assert added <= {*PUBLIC}


def messages() -> str:
    """Return the strings in our modules, one a line, with ``…`` for what is filled in."""
    found = []
    for file in (ROOT / "pymc").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            text = [
                part.value if isinstance(part, ast.Constant) else "…"
                for part in parts
                if not isinstance(part, ast.Constant) or isinstance(part.value, str)
            ]
            if isinstance(node, ast.JoinedStr | ast.Constant):
                found.append("".join(map(str, text)))
    return "\n".join(found)


def test_quoted_messages_are_those_of_the_code() -> None:
    """The first column of the table of errors has parts of messages, as they are written."""
    text = DOCS.joinpath("explanation", "errors.md").read_text()
    table = text.split("| message |")[1].split("\n\n")[0]
    quoted = [
        m for row in table.splitlines()[2:] for m in re.findall(r"`(.*?)`", row.split("|")[1])
    ]
    known = messages()
    assert len(quoted) > 20
    assert [message for message in quoted if message not in known] == []


def test_architecture_names_every_folder() -> None:
    text = ROOT.joinpath("ARCHITECTURE.md").read_text()
    folders = {file.parent.name for file in (ROOT / "pymc").rglob("*.py")}
    assert {folder for folder in folders if f"{folder}/" not in text} == set()
    named = re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", text)
    roots = ROOT, ROOT / "pymc", ROOT / "pymc" / "variational"
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_every_public_name_has_a_docstring() -> None:
    assert [name for name, value in OBJECTS.items() if not inspect.getdoc(value)] == []
