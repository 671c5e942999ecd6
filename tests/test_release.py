# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""What a release consists of: one version everywhere, and a wheel for each supported Python.

``make release`` builds it, and installs it with its dependencies from the registry.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

from pathlib import Path

import pytest

import pymc as pm

from tests.test_installed import copy_sources

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text())["project"]
PYTHONS = ("3.12", "3.13", "3.14")

STARTED = """
import compileall, importlib.util, pathlib, sys
folder = pathlib.Path(importlib.util.find_spec("_pymc_minibatch").origin).parent
[place] = [i for i, finder in enumerate(sys.meta_path) if "OverlayFinder" in repr(finder)]
print(place, importlib.util.find_spec("pymc").origin == str(folder / "pymc" / "__init__.py"))
print(bool(compileall.compile_dir(folder, quiet=1, force=True)))
"""


def test_one_version():
    version = PROJECT["version"]
    assert pm.minibatch.__version__ == version
    changelog = ROOT.joinpath("CHANGELOG.md").read_text()
    [released, *_] = re.findall(
        r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE
    )
    assert released[0] == version
    citation = ROOT.joinpath("CITATION.cff").read_text()
    assert f"\nversion: {version}\n" in citation
    assert f"\ndate-released: {released[1]}\n" in citation


def test_the_extra_all_has_all():
    extras = PROJECT["optional-dependencies"]
    [all_] = extras["all"]
    assert set(re.findall(r"\w+", all_.partition("[")[2])) == {*extras} - {"all"}


def test_supported_pythons():
    classifiers = "\n".join(PROJECT["classifiers"])
    assert re.findall(r"Python :: (3\.\d+)", classifiers) == list(PYTHONS)
    assert PROJECT["requires-python"] == ">=3.12,<3.15"


def test_the_command():
    """It says what is installed, and why PyMC cannot be imported."""
    code = "import sys; from _pymc_minibatch.command import main; sys.exit(main())"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "overlay")])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    found = {name.strip(): text.strip() for name, text in lines.items()}
    assert found["import pymc"] == f"patched, {ROOT / 'pymc'}"
    assert Path(found["cache"]).name.startswith("compiledir_")
    assert found["backend numba"][0].isdigit()
    refused = f"import sys; sys.modules['pytensor'] = None; {code}"
    done = subprocess.run(
        [sys.executable, "-c", refused], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert re.search(
        r"^import pymc +ModuleNotFoundError: import of pytensor", done.stdout, re.MULTILINE
    )


def find_python(version: str) -> Path | None:
    """Return a Python of a version: this one, or one of pyenv or PATH."""
    if sys.version.startswith(f"{version}."):
        return Path(sys.executable)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [*pyenv.glob(f"versions/{version}.*/bin"), *map(Path, os.get_exec_path())]
    for folder in folders:
        if (python := folder / f"python{version}").is_file():
            done = subprocess.run([python, "--version"], capture_output=True, text=True)
            if done.stdout.startswith(f"Python {version}."):
                return python
    return None


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    sources = copy_sources(folder / "sources")
    code = f"import sys; sys.path.insert(0, 'overlay'); import backend; backend.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=sources, check=True, capture_output=True)
    [found] = folder.glob("*.whl")
    return found


@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_starts_on_each_python(version, wheel, tmp_path):
    """The finder is in place before any import, and each module compiles; its dependencies are another matter."""
    python = find_python(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    new = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", new, "install", "--no-index", "--no-deps", "-q"]
    # Without the path of the clone, whose installation pip would take for that of the wheel
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    subprocess.run([*pip, wheel], env=environment, check=True, capture_output=True)
    done = subprocess.run(
        [new, "-c", STARTED], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split() == ["0", "True", "True"], done.stdout + done.stderr
    command = tmp_path / "venv" / "bin" / "pymc-minibatch"
    done = subprocess.run([command], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1  # without PyMC
    assert f"pymc-minibatch  {PROJECT['version']}, in {tmp_path}" in done.stdout
    assert "ImportError: pymc-minibatch is a patch over PyMC, but no PyMC" in done.stdout


FIT = """
import numpy as np, pymc as pm
with pm.Model():
    y = pm.Minibatch(np.random.default_rng(1).normal(2, 1, size=1000), batch_size=50)
    pm.Normal("y", pm.Normal("mu", 0, 10), 1, observed=y)
    approx = pm.fit(2000, obj_optimizer="tuned", random_seed=1, progressbar=False)
print(round(float(approx.mean.eval()[0])))
"""


@pytest.mark.skipif("RELEASE" not in os.environ, reason="installs from the registry: make release")
@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_fits_on_each_python(version, wheel, tmp_path):
    """With its dependencies, as a user installs it."""
    python = find_python(version)
    assert python is not None, f"no Python {version} here: install it, by uv or pyenv"
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True)
    folder = tmp_path / "venv" / "bin"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def run(*command) -> str:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(folder / "pip", "install", "--quiet", wheel)
    assert run(folder / "python", "-c", FIT).strip() == "2"
    assert "import pymc     patched, " in run(folder / "pymc-minibatch")
