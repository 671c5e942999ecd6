# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""What the tests share: how Hypothesis draws its examples, and what they see of the machine."""

import gc
import os

from collections.abc import Generator

import hypothesis
import pytensor
import pytest

# A first call may compile for seconds, so no example has a deadline; CI draws the same ones each time.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cxx: needs a C++ compiler, for PyTensor's C backend")
    config.addinivalue_line("markers", "slow: a fit, or another proof of more than a few seconds")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file in one process, and skip what needs a C compiler where there is none.

    Tests of a file share what one of them compiled. The pages of the documentation share nothing, and are
    spread over the processes. CI has to have a compiler.
    """
    for item in items:
        if "test_page_runs" not in item.name:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    needing = [item for item in items if item.get_closest_marker("cxx")]
    if needing and not pytensor.config.cxx:
        if os.environ.get("CI"):
            raise pytest.UsageError(f"{len(needing)} tests need a C++ compiler (g++), found none")
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="PyTensor found no C++ compiler (g++)"))


def pytest_collection_finish() -> None:
    """Collect garbage less often, and never among what was imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hide the C compiler from tests that are not about it.

    PyTensor's Python linker compiles the inner graphs of Ops for C where there is a compiler, for half a second
    to two each.
    """
    cxx = pytensor.config.cxx if item.get_closest_marker("cxx") else ""
    with pytensor.config.change_flags(cxx=cxx):
        return (yield)
