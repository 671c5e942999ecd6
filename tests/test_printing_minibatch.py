# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A minibatch is shown as a part of its plate; the rest reads as the model of all rows."""

import numpy as np
import pytest

import pymc as pm

from pymc.model_graph import ModelGraph
from pymc.printing import model_table

N, B = 40, 5
rng = np.random.default_rng(1)
X = rng.normal(size=(N, 3))
Y = rng.normal(size=N)


def build(kind):
    with pm.Model(coords={"obs": range(N), "feature": list("abc"), "no_obs": range(2)}) as model:
        x, y = X, Y
        if kind != "raw":
            x = pm.Data("x", X, dims=("obs", "feature"))
            y = pm.Data("y_data", Y, dims="obs")
        if kind != "plain":
            x, y = pm.Minibatch(x, y, batch_size=B)
        b = pm.Normal("b", dims="feature")
        pm.Normal("c", dims="no_obs")
        mu = pm.Deterministic("mu", x @ b, dims="obs")
        pm.Normal("lik", mu, 1, observed=y, dims="obs")
        pm.Potential("penalty", -((y - mu) ** 2), dims="obs")
    return model


def cells(table):
    return [list(column.cells) for column in table.columns]


def test_edges_are_those_of_all_rows():
    for kind in ("data", "plain"):
        edges = set(ModelGraph(build(kind)).edges())
        assert ("lik", "mu") in edges and ("y_data", "lik") in edges
        assert ("mu", "x") in edges and ("lik", "x") not in edges


@pytest.mark.parametrize("kind", ["data", "raw"])
def test_diagrams_say_how_many_rows_of_all(kind):
    text = pm.model_to_mermaid(build(kind))
    assert 'subgraph "obs (5 of 40)"' in text
    assert 'subgraph "feature (3)"' in text
    assert "lik ~ Normal" in text
    assert "inibatch" not in text


def test_graphviz():
    pytest.importorskip("graphviz")
    source = pm.model_to_graphviz(build("data")).source
    assert "obs (5 of 40)" in source
    assert "obs (5 of 40) x feature (3)" in source
    assert "inibatch" not in source


def test_nameless_axes_say_it_too():
    with pm.Model() as model:
        y = pm.Minibatch(X, batch_size=B)
        pm.Normal("lik", pm.Normal("mu", shape=3), 1, observed=y)
    assert 'subgraph "5 of 40 x 3"' in pm.model_to_mermaid(model)


@pytest.mark.parametrize("formatting", ["plain", "latex"])
def test_text_is_that_of_all_rows(formatting):
    plain = build("plain").str_repr(formatting=formatting)
    assert build("data").str_repr(formatting=formatting) == plain


def test_one_variable():
    def text(rows):
        with pm.Model() as model:
            x, y = pm.Data("x", X[:, 0]), pm.Data("y_data", Y)
            x, y = rows(x, y)
            pm.Normal("lik", x * pm.Normal("b"), 1, observed=y)
        return model["lik"].str_repr()

    of_all_rows = text(lambda x, y: (x, y))
    assert of_all_rows == "lik ~ Normal(f(b), 1)"
    assert text(lambda x, y: pm.Minibatch(x, y, batch_size=B)) == of_all_rows


@pytest.mark.parametrize("kind", ["data", "raw"])
def test_table(kind):
    names, expressions, dims = cells(model_table(build(kind)))
    shown = dict(zip((name.split("[")[0].strip() for name in names), zip(expressions, dims)))
    assert shown["lik"] == ("Normal(mu, 1)", "obs[5 of 40]")
    assert shown["c"] == ("Normal(0, 1)", "no_obs[2]")
    assert shown["b"] == ("Normal(0, 1)", "feature[3]")


def test_without_minibatch_nothing_changes():
    text = pm.model_to_mermaid(build("plain"))
    assert 'subgraph "obs (40)"' in text and " of " not in text


def test_what_has_no_full_model_is_shown_as_it_is():
    with pm.Model() as model:
        y = pm.Minibatch(Y, batch_size=B)
        pm.Normal("lik", pm.Normal("mu"), 1, observed=y, shape=(B,))
    assert "lik ~ Normal(mu, 1)" in model.str_repr()
    assert "lik" in pm.model_to_mermaid(model)


def test_other_errors_are_not_swallowed(monkeypatch):
    def broken(model):
        raise ValueError("something else")

    monkeypatch.setattr("pymc.model.full_data.full_data_model", broken)
    with pytest.raises(ValueError, match="something else"):
        build("data").str_repr()
