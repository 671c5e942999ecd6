# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Runs the tests on the pymc/ of this clone, whether or not it is installed, beside plain PyMC."""

import importlib.util
import os
import sys

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    """Put this clone first, before anything imports PyMC.

    Subprocesses of the tests get the same: ``PYTHONPATH`` for the clone, and ``PYTENSOR_FLAGS`` for a
    cache of compiled code that is the clone's own, so that nothing compiled from other sources of
    the same names is taken from the user's.
    """
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in others:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), *others]))
    spec = importlib.util.find_spec("pymc")
    if spec is None or Path(spec.origin or "").parent != ROOT / "pymc":
        raise pytest.UsageError(
            f"the tests are for {ROOT / 'pymc'}, but import pymc finds "
            f"{spec and spec.origin}: uninstall the pymc-minibatch of another folder"
        )
    flags = os.environ.get("PYTENSOR_FLAGS", "")
    if "compiledir" not in flags:
        cache = f"base_compiledir={ROOT / '.cache' / 'pytensor'}"
        os.environ["PYTENSOR_FLAGS"] = f"{flags},{cache}".lstrip(",")


@pytest.fixture(scope="session")
def plain_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python with the same packages as this one, and without the patch."""
    from tests.conformance import make_plain_environment  # which the line above has to find

    return make_plain_environment(tmp_path_factory.mktemp("plain"))
