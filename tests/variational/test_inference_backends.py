# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Float32, and what a fit on one backend leaves for the others."""

import numpy as np
import pytensor
import pytest

from numpy.random import Generator

import pymc as pm

from tests.variational.engine import (
    BACKENDS,
    JAX_COPIES,
    PYTHON,
    normal_model,
    params_of,
    quiet,
)


class TestFloat32:
    @pytest.mark.parametrize("backend", ["numba", "python"])
    def test_stays(self, backend):
        kwargs = quiet() if backend == "python" else {"backend": backend, "progressbar": False}
        kwargs |= {"random_seed": 1, "average": 0.5}
        with pytensor.config.change_flags(floatX="float32"):
            with normal_model():
                single = pm.fit(30, obj_optimizer=pm.adam(learning_rate=0.01), **kwargs)
            for params in params_of(single):
                assert params.dtype == "float32"
        with normal_model():
            double = pm.fit(30, obj_optimizer=pm.adam(learning_rate=0.01), **kwargs)
        for x, y in zip(params_of(single), params_of(double)):
            assert y.dtype == "float64"
            assert x.shape == y.shape
            assert np.isfinite(x).all()
        assert single.hist.dtype == double.hist.dtype == "float64"
        assert single.report.driver == backend

    def test_every_value_of_a_step(self):
        with pytensor.config.change_flags(floatX="float32"):
            with normal_model():
                advi = pm.ADVI(random_seed=1)
                advi.fit(3, **quiet(obj_optimizer=pm.adam(), average=0.5))
            state = advi.state.step.load()
        kinds = {str(v.dtype) for v in state if isinstance(v, np.ndarray) and v.dtype.kind == "f"}
        assert kinds == {"float32"}


@pytest.mark.filterwarnings(JAX_COPIES)
class TestAcrossBackends:
    """What one backend leaves, the others take."""

    @pytest.fixture(scope="class")
    @classmethod
    def advi(cls):
        inference = pm.ADVI(model=normal_model(), random_seed=1)
        inference.fit(5, **quiet())
        return inference

    @pytest.mark.parametrize("first", BACKENDS)
    @pytest.mark.parametrize("second", BACKENDS)
    def test_two_fits(self, advi, first, second):
        for backend in (first, second):
            before = params_of(advi.approx)
            advi.fit(5, backend=backend, progressbar=False)
            for var in advi.state.step.shared:
                assert type(var.container.storage[0]) in (np.ndarray, Generator)
            assert all(np.all(x != y) for x, y in zip(before, params_of(advi.approx)))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_sample_and_evaluate(self, advi, backend):
        advi.fit(5, backend=backend, progressbar=False)
        node = advi.approx.sample_node(advi.approx.model["mu"])
        for mode in (PYTHON, "NUMBA", "JAX"):
            assert np.isfinite(node.eval(mode=mode))
        draws = advi.approx.sample(10, random_seed=1)
        assert draws["posterior"]["mu"].shape == (1, 10)

    @pytest.mark.slow
    def test_nuts(self, advi):
        advi.fit(5, backend="jax", progressbar=False)
        with advi.approx.model:
            tree = pm.sample(
                5,
                tune=5,
                chains=1,
                progressbar=False,
                random_seed=1,
                compute_convergence_checks=False,
            )
        assert tree["posterior"]["mu"].shape == (1, 5)
