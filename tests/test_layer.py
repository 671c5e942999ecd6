# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""The patch and the release are one package: no module keeps what the patch replaced."""

import ast
import importlib
import inspect
import os
import pickle
import shutil
import subprocess
import sys
import tomllib
import types

from pathlib import Path

import pytest

import pymc as pm

from pymc import _layer

FOLDER = Path(_layer.__file__).parent
OURS = sorted(
    ".".join(["pymc", *file.relative_to(FOLDER).with_suffix("").parts]).removesuffix(".__init__")
    for file in FOLDER.rglob("*.py")
    if file.name != "_layer.py"
)
SHADOWS = [
    name
    for name in OURS
    if (path := _layer.RELEASE.joinpath(*name.split(".")[1:])).with_suffix(".py").is_file()
    or path.is_dir()
]


def public(module):
    """Yield the classes and functions that a module of ours defines for its users."""
    for value in vars(module).values():
        if isinstance(value, type | types.FunctionType) and value.__module__ == module.__name__:
            if "<" not in value.__qualname__ and not value.__qualname__.startswith("_"):
                yield value


def test_no_stale_references():
    stale = []
    for user in [m for n, m in sys.modules.items() if n.partition(".")[0] == "pymc"]:
        for name, value in vars(user).items():
            if isinstance(value, type | types.FunctionType) and value.__module__ in OURS:
                current = getattr(sys.modules[value.__module__], value.__qualname__, value)
                if current is not value:
                    stale.append(f"{user.__name__}.{name}")
    assert [s for s in stale if not s.endswith(".released")] == []


@pytest.mark.parametrize("name", OURS)
def test_pickles_by_name(name):
    module = importlib.import_module(name)
    assert module.__name__ == name
    for value in public(module):
        assert pickle.loads(pickle.dumps(value)) is value


@pytest.mark.parametrize("name", SHADOWS)
def test_every_module_continues_the_release(name):
    module = importlib.import_module(name)
    assert Path(module.__file__).is_relative_to(FOLDER)
    path = _layer.RELEASE.joinpath(*name.split(".")[1:])
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(source.read_text())
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    assert [n for n in defined if not hasattr(module, n)] == []
    assert [n for n in vars(module).get("__all__", ()) if not hasattr(module, n)] == []
    if path.is_dir():
        assert module.__path__ == [str(FOLDER.joinpath(*name.split(".")[1:])), str(path)]


@pytest.mark.parametrize("name", SHADOWS)
def test_sources_are_found(name):
    for value in public(importlib.import_module(name)):
        if isinstance(value, types.FunctionType):
            # a decorator may have put a wrapper of another file around it
            source = inspect.getsource(inspect.unwrap(value))
            assert value.__name__ in source or "lambda" in source


def test_every_folder_is_a_package():
    """A folder without ``__init__.py`` would neither be installed nor find the release's modules."""
    folders = {file.parent for file in FOLDER.rglob("*.py")}
    assert [f for f in sorted(folders) if not f.joinpath("__init__.py").is_file()] == []


def test_supported_range_is_the_requirement():
    pyproject = tomllib.loads(FOLDER.parent.joinpath("pyproject.toml").read_text())
    assert pyproject["project"]["dependencies"] == [_layer.SUPPORTED]


# A release of a few lines, with the layer over it


@pytest.fixture
def over(tmp_path):
    """Return a function that runs code over a release of these files, continued by those."""

    def run(code, release, ours, version="6.4.0", options=("-S",)):
        site, patch = tmp_path / "site", tmp_path / "patch"
        for folder, files in ((site, release), (patch, ours)):
            for name, text in ({} if files is None else {"__init__.py": "", **files}).items():
                file = folder / "pymc" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
        shutil.copy(_layer.__file__, patch / "pymc")
        site.mkdir(exist_ok=True)
        if version is not None:
            metadata = site / f"pymc-{version}.dist-info" / "METADATA"
            metadata.parent.mkdir(exist_ok=True)
            metadata.write_text(f"Metadata-Version: 2.1\nName: pymc\nVersion: {version}\n")
        elsewhere = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
        written = {k: v for k, v in os.environ.items() if k not in elsewhere}
        environment = {**written, "PYTHONPATH": os.pathsep.join([str(patch), str(site)])}
        return subprocess.run(
            [sys.executable, *options, *(["-c", code] if code else [])],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


ROOT = "from pymc import _layer\n_layer.run_release(globals())\n"
SHADOW = "from pymc import _layer\nreleased = _layer.run_release(globals())\n"


def ran(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_release_functions_see_ours(over):
    release = {"a.py": "def f(): return 'theirs'\ndef g(): return f()\n"}
    ours = {"__init__.py": ROOT, "a.py": f"{SHADOW}def f(): return 'ours'\n"}
    code = "from pymc import a; print(a.f(), a.g(), a.released.f())"
    assert ran(over(code, release, ours)) == ["ours", "ours", "theirs"]


MIXIN = """
from pymc import _layer
class _Base:
    def f(self): return "ours+" + super().f()
released = _layer.run_release(globals(), Base=_Base)
"""


def test_mixin_comes_before_subclasses(over):
    release = {
        "a.py": "class Base:\n    'Doc.'\n    def f(self): return 'theirs'\n"
        "class Child(Base): pass\nx: int = 1\nfor i in range(3): pass\ndel i\n"
    }
    ours = {"__init__.py": ROOT, "a.py": MIXIN}
    code = (
        "import pickle\nfrom pymc import a\n"
        "print(a.Child().f(), a.Base.__doc__, a.Base.__module__, a.Base.__qualname__, a.x)\n"
        "print(type(pickle.loads(pickle.dumps(a.Child()))) is a.Child, hasattr(a, 'i'))"
    )
    expected = ["ours+theirs", "Doc.", "pymc.a", "Base", "1", "True", "False"]
    assert ran(over(code, release, ours)) == expected


def test_mixin_for_a_class_that_is_gone(over):
    ours = {"__init__.py": ROOT, "a.py": MIXIN}
    done = over("import pymc.a", {"a.py": "Base = 1\n"}, ours)
    assert "ImportError: pymc.a extends Base, which" in done.stderr
    assert "does not define" in done.stderr


def test_continuing_no_module_of_the_release(over):
    done = over("import pymc.a", {}, {"__init__.py": ROOT, "a.py": SHADOW})
    assert "ImportError: pymc.a is to continue a module of PyMC, but" in done.stderr


def test_tracebacks_name_the_file(over):
    release = {"a.py": "def f():\n    return missing\n"}
    done = over("from pymc import a; a.f()", release, {"__init__.py": ROOT, "a.py": SHADOW})
    assert os.path.join("site", "pymc", "a.py") + '", line 2' in done.stderr
    assert "    return missing" in done.stderr


def test_reload(over):
    release = {"b.py": "y = 1\n", "p/__init__.py": "", "p/c.py": "z = 2\n"}
    ours = {"__init__.py": ROOT, "b.py": f"{SHADOW}y += 1\n", "p/__init__.py": ROOT}
    code = (
        "import importlib, pymc.b, pymc.p.c\n"
        "for m in (pymc, pymc.b, pymc.p, pymc.p.c): importlib.reload(m)\n"
        "print(pymc.b.y, pymc.p.c.z, len(pymc.__path__), len(pymc.p.__path__))"
    )
    assert ran(over(code, release, ours)) == ["2", "2", "2", "2"]


def test_run_as_a_program(over):
    release = {"a.py": "def f(): return 'theirs'\n"}
    ours = {"__init__.py": ROOT, "a.py": f"{SHADOW}print(__name__, f())\n"}
    assert ran(over(None, release, ours, options=("-S", "-m", "pymc.a"))) == ["__main__", "theirs"]


def test_byte_code_of_the_release_is_used(over, tmp_path):
    release, ours = {"a.py": "x = 1\n"}, {"__init__.py": ROOT, "a.py": SHADOW}
    ran(over("import pymc.a", release, ours))
    cached = list(tmp_path.joinpath("site", "pymc", "__pycache__").glob("a.*.pyc"))
    assert len(cached) == 1
    written = cached[0].stat().st_mtime_ns
    ran(over("import pymc.a", {}, ours))
    assert cached[0].stat().st_mtime_ns == written


@pytest.mark.parametrize("version", ["6.3.2", "6.5.0", "6.40.0", "7.0.0rc1"])
def test_release_outside_the_range(over, version):
    done = over("import pymc", {}, {"__init__.py": ROOT}, version=version)
    assert f"a patch over pymc>=6.4,<6.5, but {version} is installed in" in done.stderr
    assert "pip uninstall pymc-minibatch" in done.stderr


@pytest.mark.parametrize("version", ["6.4.0", "6.4.7", "6.4.1rc1", "6.4.0+local"])
def test_release_inside_the_range(over, version):
    ran(over("import pymc", {}, {"__init__.py": ROOT}, version=version))


def test_no_release(over):
    done = over("import pymc", {}, {"__init__.py": ROOT}, version=None)
    assert "no PyMC with its sources and its metadata is installed" in done.stderr
    assert "pip install 'pymc>=6.4,<6.5'" in done.stderr


def test_editable_release(over, tmp_path):
    """setuptools leaves a finder for it, and its metadata lie elsewhere."""
    release, ours = {"a.py": "x = 1\n"}, {"__init__.py": ROOT, "a.py": SHADOW}
    ran(over("import pymc.a", release, ours))
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    tmp_path.joinpath("site", "pymc").rename(checkout / "pymc")
    code = (
        "import sys\nfrom importlib.machinery import PathFinder\n"
        "class Finder:\n    @staticmethod\n    def find_spec(name, path=None, target=None):\n"
        f"        return PathFinder.find_spec(name, [{str(checkout)!r}]) if name == 'pymc' else None\n"
        "sys.meta_path.append(Finder)\nimport pymc.a; print(pymc.a.x, pymc._layer.RELEASE)"
    )
    shutil.rmtree(tmp_path / "patch")
    assert ran(over(code, None, ours)) == ["1", str(checkout / "pymc")]


def test_root_exports_what_plain_pymc_does():
    assert pm.__version__.startswith("6.4.")
    assert pm.Model.__module__ == "pymc.model.core"
