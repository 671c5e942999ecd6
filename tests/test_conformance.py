# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""The quick part of ``make conformance``, and what decides over its outcome."""

import subprocess
import sys

from pathlib import Path

import pytest

from tests.conformance import ALLOWED, counts, differing, read_allowed, verdict

TABLE = """
| test | reason |
| --- | --- |
| `tests/test_a.py::test_x` | it is about `Minibatch` |
"""


def test_quick_part_of_the_release_tests():
    script = Path(__file__).with_name("conformance.py")
    done = subprocess.run([sys.executable, script, "--quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "plain PyMC: " in done.stdout


def test_allowed_names_a_reason():
    assert read_allowed(TABLE) == {"tests/test_a.py::test_x": "it is about `Minibatch`"}
    with pytest.raises(ValueError, match=r"allows `tests/test_a.py::test_x` to differ, but gives"):
        read_allowed("| `tests/test_a.py::test_x` | |")
    read_allowed(ALLOWED.read_text())


def test_differing():
    plain = {"same": "passed", "worse": "passed", "gone": "passed", "better": "failed"}
    patched = {"same": "passed", "worse": "failed", "new": "passed", "better": "passed"}
    assert differing(plain, patched) == {"worse", "gone", "new", "better"}


def test_counts():
    outcomes = {"a": "passed", "b": "error", "c": "passed", "d": "xfailed"}
    assert counts(outcomes) == "2 passed, 0 failed, 1 error, 0 skipped, 1 xfailed"


def test_verdict():
    allowed = read_allowed(TABLE)
    assert verdict({"tests/test_a.py::test_x": "..."}, allowed, ["test_a.py"]) == []
    assert verdict({}, allowed, ["test_b.py"]) == []
    [stale] = verdict({}, allowed, ["test_a.py"])
    assert "does not differ" in stale
    [unnamed] = verdict({"tests/test_b.py::test_y": "..."}, allowed, ["test_b.py"])
    assert unnamed == "tests/test_b.py::test_y: no reason given"
