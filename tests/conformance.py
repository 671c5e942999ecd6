# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Runs the release's own tests on plain PyMC, on the patch and in a tree of PyMC with it; prints each difference.

The tests are those of the release's sdist, and with ``--tests FOLDER`` those of a PyMC checkout too.
A difference fails the run unless ``conformance.md``, beside this file, names the test and the reason;
so does a test named there that does not differ. On the tree a test comes out as on the patch. What differs
once only, of two runs, is unstable by itself and does not count.

This file is also the pytest plugin of those runs: it writes down how each test came out, and it has
the fixtures that the sdist leaves out.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = Path(__file__).with_name("conformance.md")
QUICK = ("test_data.py", "test_root_namespace.py", "test_pytensorf.py")

Outcomes = dict[str, str]
"""How each test came out, by its id: passed, failed, error, skipped, xfailed or xpassed."""


# The runner


def make_plain_environment(folder: Path) -> Path:
    """Return a Python that has the packages of this one, and PyMC without the patch.

    Its site-packages hold the path of ours. A path that is added so has its packages found, but its
    ``.pth`` files, the patch's among them, are not run.
    """
    venv.create(folder, symlinks=os.name != "nt")
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    site.joinpath("base.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = _run([python, "-c", "import importlib.util as u; print(u.find_spec('pymc').origin)"])
    if Path(where.strip()).with_name("_layer.py").exists():
        raise RuntimeError(f"there is no plain PyMC beside the patch: import pymc finds {where}")
    return python


def fetch_release(number: str | None = None) -> Path:
    """Return the sdist of a release, by default of the installed one, which pip downloads once."""
    release = f"pymc-{number or version('pymc')}"
    cache = ROOT / ".cache" / "conformance"
    if not (cache / release / "tests").is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as download:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            pip += ["--no-binary", "pymc", "--dest", download, release.replace("-", "==")]
            _run(pip)
            with tarfile.open(next(Path(download).glob("*.tar.gz"))) as sdist:
                sdist.extractall(download, filter="data")
            # Whole or not at all: another process may do the same, or this one be killed
            with suppress(OSError):
                (Path(download) / release).rename(cache / release)
    return cache / release


def run_tests(
    python: Path | str, folder: Path, tests: Sequence[str], workers: int, pymc: Path | None = None
) -> Outcomes:
    """Run `tests`, ids or files relative to `folder`, and return how each came out.

    Parameters
    ----------
    python : Path
    folder : Path
        Holds ``tests`` and a copy of this file.
    tests : sequence of str
        Empty for all of them.
    workers : int
        Processes of pytest-xdist.
    pymc : Path, optional
        The folder with the ``pymc/`` to test: the patch, or a tree. By default what `python` finds.
    """
    report = folder / "outcomes.json"
    report.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", "-p", "conformance", "-p", "no:cacheprovider"]
    command += ["-q", "--tb=no", "--continue-on-collection-errors", f"--rootdir={folder}"]
    command += ["-c", os.devnull, "-n", str(workers)] if workers > 1 else ["-c", os.devnull]
    command += tests or ["tests"]
    environment = _environment(pymc)
    environment["CONFORMANCE_OUTCOMES"] = str(report)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if not report.exists():
        raise RuntimeError(f"pytest did not come to its end:\n{done.stdout}\n{done.stderr}")
    return json.loads(report.read_text())


def compare(
    tests: Path, files: Sequence[str], workers: int, tree: Path | None = None
) -> tuple[Outcomes, Outcomes, Outcomes]:
    """Run a folder of PyMC's tests on plain PyMC, on the patch and on a tree, and return how they came out.

    Without a tree, what comes out of it is what comes out of the patch.
    """
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        shutil.copytree(tests, work / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(__file__, work / "conformance.py")
        python = make_plain_environment(work / "plain")
        targets = [f"tests/{file}" for file in files]
        plain = run_tests(python, work, targets, workers)
        patched = run_tests(sys.executable, work, targets, workers, ROOT)
        merged = patched if tree is None else run_tests(python, work, targets, workers, tree)
        unstable = differing(plain, patched) | differing(patched, merged)
        if again := sorted(unstable & plain.keys() & patched.keys() & merged.keys()):
            plain |= run_tests(python, work, again, workers=1)
            patched |= run_tests(sys.executable, work, again, workers=1, pymc=ROOT)
            if tree is not None:
                merged |= run_tests(python, work, again, workers=1, pymc=tree)
    return plain, patched, merged


def merged_tree(folder: Path) -> Path:
    """Merge the patch into the release's sdist."""
    from scripts.upstream.series import Series  # this file is copied to where these are not
    from scripts.upstream.tree import Tree

    tree = Tree.copy_of(fetch_release(), folder, Series(ROOT))
    tree.merge()
    return folder


def counts(outcomes: Outcomes) -> str:
    """Say how many tests came out in each way, those that did not run to their end included."""
    found = Counter(outcomes.values())
    always = ("passed", "failed", "error", "skipped")
    return ", ".join(f"{found[o]} {o}" for o in (*always, *sorted(found.keys() - set(always))))


def differing(plain: Outcomes, patched: Outcomes) -> set[str]:
    """Return the tests that did not come out the same."""
    return {t for t in plain.keys() | patched.keys() if plain.get(t) != patched.get(t)}


def read_allowed(text: str) -> dict[str, str]:
    """Return the reason for each test that a table of ``conformance.md`` names.

    Raises
    ------
    ValueError
        If a test has no reason.
    """
    allowed = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            test, _, reason = line.strip("| \n").partition("|")
            if not reason.strip():
                raise ValueError(f"conformance.md allows {test} to differ, but gives no reason")
            allowed[test.strip(" `")] = reason.strip()
    return allowed


def verdict(differences: dict[str, str], allowed: dict[str, str], ran: Sequence[str]) -> list[str]:
    """Return what is wrong: differences without a reason, and reasons without a difference.

    Parameters
    ----------
    differences, allowed : dict
        By test.
    ran : sequence of str
        The files that were run; what `allowed` says of others is left alone. Empty for all.
    """
    wrong = [f"{test}: no reason given" for test in differences if test not in allowed]
    for test in allowed:
        file = test.partition("::")[0].removeprefix("tests/")
        if test not in differences and (not ran or file in ran):
            wrong.append(f"{test}: conformance.md gives a reason, but it does not differ")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--tests", type=Path, help="the tests folder of a PyMC checkout, run too")
    parser.add_argument("--workers", type=int, default=1, help="processes for each run")
    options = parser.parse_args(arguments)

    allowed = read_allowed(ALLOWED.read_text())
    release = fetch_release() / "tests"
    files = QUICK if options.quick else tuple(sorted(f.name for f in release.glob("test_*.py")))
    folders = [(release, files)]
    if options.tests is not None:
        checkout = options.tests.resolve()
        found = sorted(checkout.rglob("test_*.py"))
        folders.append((checkout, tuple(f.relative_to(checkout).as_posix() for f in found)))
    wrong = []
    tree = None if options.quick else merged_tree(ROOT / "build" / "conformance")
    for folder, ran in folders:
        plain, patched, merged = compare(folder, ran, options.workers, tree)
        n_passed = sum(plain.get(test) == how == "passed" for test, how in patched.items())
        differences = {
            test: f"{plain.get(test, 'absent')} on plain PyMC, {patched.get(test, 'absent')} here"
            for test in sorted(differing(plain, patched))
        }
        print(f"{folder}: {n_passed} tests passed on both, {len(differences)} differ")
        print(f"  plain PyMC: {counts(plain)}")
        print(f"  here:       {counts(patched)}")
        if tree is not None:
            print(f"  in a tree:  {counts(merged)}")
        for test in sorted(differing(patched, merged)):
            line = f"{test}: {patched.get(test, 'absent')} here, {merged.get(test, 'absent')} in a tree"
            wrong.append(line)
        for test, outcomes in differences.items():
            print(f"  {test}: {outcomes} ({allowed.get(test, 'NO REASON GIVEN')})")
        wrong += verdict(differences, allowed, ran)
        if n_passed == 0:
            wrong.append(f"{folder}: no test passed on both, so nothing was compared")
    print("\n".join(wrong) or "every difference has its reason")
    return bool(wrong)


def _environment(pymc: Path | None = None) -> dict[str, str]:
    """Return the environment of a run; ``PYTHONPATH`` leads to the folder of a ``pymc/``, or nowhere."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHON"))}
    return environment | ({} if pymc is None else {"PYTHONPATH": str(pymc)})


def _run(command: Sequence[Path | str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=_environment())
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


# The plugin

_outcomes: Outcomes = {}


def pytest_runtest_logreport(report: Any) -> None:
    outcome = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = "xpassed" if report.passed else "xfailed"
    elif report.failed and report.when != "call":
        outcome = "error"
    if report.when == "call" or outcome != "passed":
        _outcomes[report.nodeid] = outcome


def pytest_collectreport(report: Any) -> None:
    if report.failed:
        _outcomes[report.nodeid] = "error"


def pytest_sessionfinish(session: pytest.Session) -> None:
    if path := os.environ.get("CONFORMANCE_OUTCOMES"):
        if not hasattr(session.config, "workerinput"):
            Path(path).write_text(json.dumps(_outcomes))


@pytest.fixture
def seeded_test() -> None:
    import numpy as np

    np.random.seed(20160911)


@pytest.fixture
def strict_float32() -> Iterator[None]:
    import pytensor

    strict = {"warn_float64": "raise"} if pytensor.config.floatX == "float32" else {}
    with pytensor.config.change_flags(**strict):
        yield


if __name__ == "__main__":
    sys.exit(main())
