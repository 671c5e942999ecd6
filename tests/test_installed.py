# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""The patch installed over a release of its own, in a throw-away environment.

Nothing is downloaded: the environment takes its dependencies from this one's site-packages, and has
a copy of PyMC in its own.
"""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile

from pathlib import Path

import pytest

from tests.conformance import make_plain_environment

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (
    *("LICENSE", "MANIFEST.in", "README.md", "overlay", "pymc"),
    *("pyproject.toml", "setup.cfg", "setup.py"),
)

WHICH = "import importlib.util; print(importlib.util.find_spec('pymc').origin)"

CHILDREN = """
import importlib.util
import multiprocessing

def which():
    return importlib.util.find_spec("pymc").origin

if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(pool.apply(which))
"""


def copy_sources(folder: Path) -> Path:
    """Copy what is built, for setuptools writes beside it."""
    folder.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for path in map(ROOT.joinpath, SOURCES):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=ignored)
        elif path.is_file():
            shutil.copy(path, folder)
    return folder


class Environment:
    """A virtual environment with PyMC, and this project's sources to install over it."""

    def __init__(self, python: Path, sources: Path):
        self.python, self.sources = python, sources
        self.site = Path(self("-c", "import sysconfig; print(sysconfig.get_path('purelib'))"))

    def run(self, *arguments, **keywords):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST_"))}
        keywords = {"cwd": self.sources.parent, **keywords}
        return subprocess.run(
            [self.python, *arguments], env=clean, capture_output=True, text=True, **keywords
        )

    def __call__(self, *arguments, **keywords) -> str:
        done = self.run(*arguments, **keywords)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def install(self, form: str) -> Path:
        """Install a wheel or the editable form, and return the folder that ``pymc`` comes from."""
        pip = ["-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation", "--quiet"]
        if form == "editable":
            self(*pip, "--editable", self.sources)
            return self.sources / "pymc"
        self(*pip, self.sources)
        return self.site / "_pymc_minibatch" / "pymc"

    def release_digest(self) -> str:
        digest = hashlib.sha256()
        folders = [self.site / "pymc", *self.site.glob("pymc-*.dist-info")]
        for file in sorted(f for folder in folders for f in folder.rglob("*")):
            if file.is_file() and file.suffix != ".pyc":
                digest.update(f"{file}".encode() + file.read_bytes())
        return digest.hexdigest()


@pytest.fixture
def environment(make_environment):
    return make_environment()


@pytest.fixture(scope="module")
def make_environment(tmp_path_factory):
    release = importlib.metadata.distribution("pymc")

    def make() -> Environment:
        folder = tmp_path_factory.mktemp("installed")
        python = make_plain_environment(folder / "venv")
        made = Environment(python, copy_sources(folder / "sources"))
        from_site = Path(str(release.locate_file("")))
        for name in ("pymc", f"pymc-{release.version}.dist-info"):
            shutil.copytree(from_site / name, made.site / name)
        return made

    return make


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, make_environment):
    """Return an environment with the patch installed, the folder it is in, and PyMC's digest."""
    environment = make_environment()
    before = environment.release_digest()
    assert Path(environment("-c", WHICH)).parent == environment.site / "pymc"
    return environment, environment.install(request.param), before


@pytest.mark.parametrize("options", [(), ("-I",), ("-P",), ("-s", "-E"), ("-O",)])
def test_wins_over_site_packages(installed, options):
    environment, folder, _ = installed
    assert environment(*options, "-c", WHICH) == str(folder / "__init__.py")


def test_wins_in_child_processes(installed, tmp_path):
    environment, folder, _ = installed
    script = tmp_path / "children.py"
    script.write_text(CHILDREN)
    assert set(environment(script).split()) == {str(folder / "__init__.py")}


def test_wins_under_pytest_from_elsewhere(installed, tmp_path):
    environment, folder, _ = installed
    tmp_path.joinpath("test_which.py").write_text(
        "import importlib.util\n"
        "def test_which():\n"
        f"    assert importlib.util.find_spec('pymc').origin == {str(folder / '__init__.py')!r}\n"
    )
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull)
    assert "1 passed" in environment(*arguments, f"--rootdir={tmp_path}", tmp_path, cwd=tmp_path)


def test_runs_and_leaves_the_release_alone(installed):
    environment, folder, before = installed
    code = (
        "import pymc as pm\n"
        "with pm.Model() as model: pm.Normal('x')\n"
        "print(pm._layer.RELEASE, pm.__file__, pm.sampling.forward.__name__)"
    )
    expected = f"{environment.site / 'pymc'} {folder / '__init__.py'} pymc.sampling.forward"
    assert environment("-I", "-c", code) == expected
    assert environment.release_digest() == before


def test_a_module_of_every_package_is_installed(installed):
    _, folder, _ = installed
    ours = {f.relative_to(ROOT / "pymc") for f in (ROOT / "pymc").rglob("*.py")}
    assert {f.relative_to(folder) for f in folder.rglob("*.py")} == ours


def test_a_release_outside_the_range(installed):
    environment, _, _ = installed
    [folder] = environment.site.glob("pymc-*.dist-info")
    metadata = folder / "METADATA"
    text = metadata.read_text()
    try:
        metadata.write_text(text.replace("\nVersion: 6.4", "\nVersion: 6.9", 1))
        done = environment.run("-c", "import pymc")
    finally:
        metadata.write_text(text)
    assert done.returncode == 1
    assert "ImportError: this pymc-minibatch is a patch over pymc>=6.4,<6.5, but 6.9" in done.stderr
    assert f"is installed in {environment.site / 'pymc'}" in done.stderr


@pytest.mark.parametrize("form", ["wheel", "editable"])
def test_uninstalling_leaves_plain_pymc(environment, form):
    before = environment.release_digest()
    there = sorted(environment.site.iterdir())
    environment.install(form)
    assert sorted(environment.site.iterdir()) != there
    environment("-m", "pip", "uninstall", "--yes", "--quiet", "pymc-minibatch")
    assert Path(environment("-c", WHICH)).parent == environment.site / "pymc"
    assert sorted(environment.site.iterdir()) == there
    assert environment.release_digest() == before


def test_a_wheel_from_the_source_distribution(tmp_path):
    """Nothing that the build needs is left out of the sdist."""
    sources = copy_sources(tmp_path / "sources")
    hooks = "import sys; sys.path.insert(0, 'overlay'); import backend; "
    for folder, hook in ((sources, "build_sdist"), (None, "build_wheel")):
        if folder is None:
            [archive] = tmp_path.glob("*.tar.gz")
            shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
            [folder] = tmp_path.joinpath("unpacked").iterdir()
        code = f"{hooks}backend.{hook}({str(tmp_path)!r})"
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        assert archive.read("_pymc_minibatch.pth") == b"import _pymc_minibatch\n"
        [record] = [n for n in names if n.endswith(".dist-info/RECORD")]
        recorded = {line.split(",")[0] for line in archive.read(record).decode().splitlines()}
    assert recorded == names
    ours = {
        f"_pymc_minibatch/pymc/{f.relative_to(ROOT / 'pymc')}" for f in ROOT.glob("pymc/**/*.py")
    }
    assert ours <= names
