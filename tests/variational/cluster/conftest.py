# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Steps by workers in this process."""

from collections.abc import Iterator
from contextlib import contextmanager

import cloudpickle
import pytest

import pymc as pm

from pymc.variational.cluster import steps
from pymc.variational.cluster.gradients import GradientProgram
from tests.variational.cluster.in_process import InProcess, close


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def open_pool(workers: pm.Workers, program: GradientProgram) -> Iterator[InProcess]:
        sent = cloudpickle.dumps(program)
        del program
        programs = [cloudpickle.loads(sent) for _ in range(workers.n)]
        for each in programs:
            each.build()
        try:
            yield InProcess(workers, programs, {"workers": workers.n})
        finally:
            for each in programs:
                close(each)

    monkeypatch.setattr(steps, "open_pool", open_pool)
