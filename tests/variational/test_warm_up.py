# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

import pytest

import pymc as pm

from pymc.variational import warm_up
from tests.variational.engine import quiet


@pytest.mark.parametrize("build", warm_up.MODELS)
def test_models(build):
    assert len(pm.fit(3, model=build(), random_seed=1, **quiet()).hist) == 3


def test_each_model_is_told(monkeypatch, capsys):
    fits = []
    monkeypatch.setattr(pm, "fit", lambda n, model, **options: fits.append(model))
    warm_up.warm_up()
    assert len(fits) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "hierarchical",
        "logistic regression",
        "group effects",
    ]
