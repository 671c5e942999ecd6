# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The trainer of pymc-extras on models of minibatches: terms are scaled to all rows, once."""

from __future__ import annotations

import numpy as np
import pytest

import pymc as pm

training = pytest.importorskip("pymc_extras.inference.advi.training")
optimizers = pytest.importorskip("pymc_extras.inference.advi.optimizers")

N, BATCH, STEPS = 400, 20, 400
Y = np.random.default_rng(1).normal(2, 1, size=N)


def model_of(batch_size=None):
    with pm.Model(coords={"obs": range(N)}) as model:
        y = pm.Data("y_data", Y, dims="obs")
        if batch_size is not None:
            y = pm.Minibatch(y, batch_size=batch_size)
        pm.Normal("y", pm.Normal("mu", 0, 10), 1, observed=y, dims="obs")
    return model


def losses(model, **fit):
    """Losses of a guide that stays as it is: independent of each other."""
    trainer = training.Trainer(optimizer=optimizers.sgd(0.0), random_seed=1)
    return trainer.fit(STEPS, model=model, **fit).loss_history


def assert_same_mean(one, two):
    """A false alarm in 10^8 runs; without N/B the losses would be a twentieth."""
    error = np.sqrt((one.var() + two.var()) / STEPS)
    assert abs(one.mean() - two.mean()) < 5.7 * error
    assert one.mean() / 20 < two.mean() - 5.7 * error


def test_a_minibatch_is_scaled_to_all_rows():
    assert_same_mean(losses(model_of()), losses(model_of(BATCH)))


def test_its_stream_of_batches_is_scaled_once():
    rng = np.random.default_rng(2)
    batches = ({"y_data": rng.choice(Y, BATCH)} for _ in range(STEPS + 1))
    with pm.Model() as model:
        y = pm.Data("y_data", Y[:BATCH])
        pm.Normal("y", pm.Normal("mu", 0, 10), 1, observed=y, total_size=N)
    assert_same_mean(losses(model_of()), losses(model, data=batches))
