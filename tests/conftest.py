#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.

"""What the tests share: plain PyMC beside the patch, and how Hypothesis draws its examples."""

import os

from pathlib import Path

import hypothesis
import pytensor
import pytest

from tests.conformance import make_plain_environment

# A first call may compile for seconds, so no example has a deadline; CI draws the same ones each time.
hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a C compiler where there is none; CI has to have one."""
    needing = [item for item in items if item.get_closest_marker("cxx")]
    if needing and not pytensor.config.cxx:
        if os.environ.get("CI"):
            raise pytest.UsageError(f"{len(needing)} tests need a C++ compiler (g++), found none")
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="PyTensor found no C++ compiler (g++)"))


@pytest.fixture(scope="session")
def plain_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python with the same packages as this one, and without the patch."""
    return make_plain_environment(tmp_path_factory.mktemp("plain"))
