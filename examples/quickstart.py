# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Show the variational API: fits, checks, draws, new data, and minibatches.

Run it with ``python examples/quickstart.py``: it prints the results of
``docs/tutorials/quickstart.md`` and draws its figures.
"""

import argparse
import time

from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytensor
import pytensor.tensor as pt

from matplotlib.ticker import MaxNLocator
from scipy.stats import gaussian_kde, norm
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import pymc as pm

from pymc.variational.callbacks import Tracker

BLUE, ORANGE, GREEN = "#1f5a94", "#d1662b", "#3d8b5f"
SEED = 42

WEIGHTS = np.array([0.2, 0.8])
CENTRES = np.array([-0.3, 0.5])
WIDTHS = np.array([0.1, 0.1])


def gamma_model(data: np.ndarray) -> pm.Model:
    with pm.Model() as model:
        alpha = pm.Exponential("alpha", 0.1)
        beta = pm.Exponential("beta", 0.1)
        pm.Gamma("y", alpha, beta, observed=data)
    return model


def fit_gamma(model: pm.Model, method: str = "advi", n: int = 10_000, seed: int = SEED) -> Any:
    with model:
        return pm.fit(
            n,
            method=method,
            obj_optimizer=pm.adagrad_window(learning_rate=1e-2),
            random_seed=seed,
            progressbar=False,
        )


def mixture_model() -> pm.Model:
    with pm.Model() as model:
        pm.NormalMixture("x", w=WEIGHTS, mu=CENTRES, sigma=WIDTHS)
    return model


def fit_until_still(model: pm.Model, seed: int = SEED, **options: Any) -> Any:
    check = pm.variational.callbacks.CheckParametersConvergence(**options)
    with model:
        return pm.fit(method="advi", callbacks=[check], random_seed=seed, progressbar=False)


def track_mixture(model: pm.Model, n: int = 20_000, more: int = 100_000) -> tuple[Any, Tracker]:
    with model:
        advi = pm.ADVI(random_seed=SEED)
    tracker = Tracker(mean=advi.approx.mean.eval, std=advi.approx.std.eval)
    advi.fit(n, callbacks=[tracker], progressbar=False)
    advi.refine(more, progressbar=False)
    return advi, tracker


def fit_particles(model: pm.Model, n: int = 300, n_particles: int = 1000) -> Any:
    with model:
        return pm.fit(
            n,
            method="svgd",
            inf_kwargs={"n_particles": n_particles},
            obj_optimizer=pm.sgd(learning_rate=0.01),
            random_seed=SEED,
            progressbar=False,
        )


def squares(approx: Any, model: pm.Model) -> dict[str, Any]:
    square = model["x"] ** 2
    one = approx.sample_node(square)
    thousand = approx.sample_node(square, size=1000)
    size = pt.iscalar("size")
    many = approx.sample_node(square, size=size)
    return {
        "one draw at a time": [float(one.eval()) for _ in range(3)],
        "mean and variance": (float(thousand.mean(0).eval()), float(thousand.var(0).eval())),
        "shapes": [many.eval({size: n}).shape for n in (100, 10_000)],
    }


class Iris(NamedTuple):
    """Training and test sets of flowers: four lengths in cm each, and the species."""

    X_train: np.ndarray  # (112, 4) float64
    X_test: np.ndarray  # (38, 4) float64
    y_train: np.ndarray  # (112,) int64
    y_test: np.ndarray  # (38,) int64


def read_iris() -> Iris:
    X, y = load_iris(return_X_y=True)
    return Iris(*train_test_split(X, y, random_state=SEED))


def iris_inference(iris: Iris, n_particles: int = 500) -> tuple[Any, Tracker]:
    Xt, yt = pytensor.shared(iris.X_train), pytensor.shared(iris.y_train)
    with pm.Model():
        slope = pm.Normal("slope", 0, sigma=1e2, shape=(4, 3))
        intercept = pm.Normal("intercept", sigma=1e4, shape=(3,))
        p = pt.special.softmax(Xt.dot(slope) + intercept, axis=-1)
        pm.Categorical("species", p=p, observed=yt)
        inference = pm.SVGD(n_particles=n_particles, jitter=1, random_seed=SEED)

    test_p = inference.approx.sample_node(p, more_replacements={Xt: iris.X_test}, size=100)
    train_p = inference.approx.sample_node(p)
    tracker = Tracker(
        test_accuracy=pt.eq(test_p.argmax(-1), iris.y_test).mean(-1).eval,
        train_accuracy=pt.eq(train_p.argmax(-1), iris.y_train).mean(-1).eval,
    )
    return inference, tracker


def fit_iris(inference: Any, tracker: Tracker, slow: int = 100, fast: int = 400) -> None:
    inference.fit(slow, callbacks=[tracker], progressbar=False)
    inference.fit(
        fast,
        obj_optimizer=pm.adamax(learning_rate=0.1),
        callbacks=[tracker],
        progressbar=False,
    )


def large_data(rows: int = 40_000, columns: int = 100) -> np.ndarray:
    rng = np.random.default_rng(SEED)
    data = rng.random((rows, columns)) * rng.integers(1, 10, size=columns)
    return data + rng.random(columns) * 10


def normal_model(X: Any, **options: Any) -> pm.Model:
    columns = X.shape[1] if isinstance(X, np.ndarray) else X.type.shape[1]
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, sigma=1e5, shape=(columns,))
        sd = pm.HalfNormal("sd", shape=(columns,))
        pm.Normal("likelihood", mu, sigma=sd, observed=X, **options)
    return model


def stop_slow_fit(approx: Any, losses: np.ndarray, i: int) -> None:
    if i % 10 == 0:
        raise StopIteration("I was slow, sorry")


def fit_all_rows(data: np.ndarray) -> Any:
    with normal_model(data):
        return pm.fit(callbacks=[stop_slow_fit], random_seed=SEED, progressbar=False)


def fit_minibatches(data: np.ndarray, n: int = 20_000, batch_size: int = 500) -> Any:
    X = pm.Minibatch(data, batch_size=batch_size)
    rate = pm.variational.schedules.cosine_decay(0.05, n)
    with normal_model(X, total_size=data.shape):
        return pm.fit(
            n, obj_optimizer=pm.adam(learning_rate=rate), random_seed=SEED, progressbar=False
        )


def plot_densities(
    draws: dict[str, np.ndarray], path: Path, xlabel: str, exact: Any = None
) -> None:
    """Plot a kernel density for each name, and the density function `exact`."""
    # The default bandwidth would merge the two modes
    width = "scott" if exact is None else 0.12
    everything = np.concatenate(list(draws.values()))
    low, high = np.quantile(everything, [0.002, 0.998])
    x = np.linspace(low, high, 400)
    figure, axis = plt.subplots(figsize=(6.5, 3), layout="constrained")
    if exact is not None:
        axis.fill_between(x, exact(x), color="#e5e7eb", label="exact")
    for (name, values), color in zip(draws.items(), [BLUE, ORANGE, GREEN]):
        axis.plot(x, gaussian_kde(values, width)(x), color=color, linewidth=2, label=name)
    axis.set(yticks=[], ylim=(0, None), xlabel=xlabel)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.legend(frameon=False)
    _save(figure, path)


def plot_lines(panels: dict[str, dict[str, Any]], path: Path) -> None:
    """Plot a panel for each title, with the lines of its dict."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.4 * len(panels), 3), layout="constrained"
    )
    for axis, (title, lines) in zip(np.atleast_1d(axes), panels.items()):
        for (name, values), color in zip(lines.items(), [BLUE, ORANGE]):
            axis.plot(values, color=color, linewidth=1, label=name, rasterized=True)
            if np.min(values) > 0 and np.max(values) > 20 * np.min(values):
                axis.set_yscale("log")
        axis.set_title(title, loc="left", fontsize=10, weight="bold")
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axis.legend(frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def mixture_density(x: np.ndarray) -> np.ndarray:
    return norm.pdf(x[:, None], CENTRES, WIDTHS) @ WEIGHTS


def draws_of(tree: Any, name: str) -> np.ndarray:
    return tree["posterior"][name].to_numpy().ravel()


def main(out: Path) -> None:
    """Run the tutorial; print the results and the times."""
    started = time.perf_counter()

    def say(*what: Any) -> None:
        print(f"[{time.perf_counter() - started:6.1f} s]", *what, flush=True)

    model = gamma_model(np.random.default_rng(SEED).gamma(2, 0.5, size=200))
    approx = fit_gamma(model)
    say(approx.report)
    full_rank = fit_gamma(model, "fullrank_advi")
    with model:
        nuts = pm.sample(random_seed=SEED, progressbar=False)
    found = {"NUTS": nuts, "ADVI": approx.sample(4000), "full-rank ADVI": full_rank.sample(4000)}
    alphas = {name: draws_of(tree, "alpha") for name, tree in found.items()}
    say({name: (f"{a.mean():.2f}", f"{a.std():.2f}") for name, a in alphas.items()})
    plot_densities(alphas, out / "quickstart_gamma.png", "alpha")

    mixture = mixture_model()
    for diff in ("relative", "absolute"):
        say(diff, fit_until_still(mixture, diff=diff).report)
    advi, tracker = track_mixture(mixture)
    say(advi.approx.report, advi.approx.mean.eval(), advi.approx.std.eval())
    track = {name: np.array(tracker[name]) for name in ("mean", "std")}
    plot_lines(
        {**{k: {k: v} for k, v in track.items()}, "loss": {"loss": advi.hist}},
        out / "quickstart_tracker.png",
    )
    svgd = fit_particles(mixture)
    say(svgd.report)
    xs = {"ADVI": advi.approx.sample(4000), "SVGD": svgd.sample(4000)}
    plot_densities(
        {name: draws_of(tree, "x") for name, tree in xs.items()},
        out / "quickstart_mixture.png",
        "x",
        mixture_density,
    )
    say(squares(svgd, mixture))

    inference, accuracy = iris_inference(read_iris())
    fit_iris(inference, accuracy)
    tests = np.array(accuracy["test_accuracy"]).mean(1)
    say(inference.approx.report, f"accuracy {tests[99]:.2f}, then {tests[-1]:.2f}")
    lines = {"test": tests, "training": np.array(accuracy["train_accuracy"])}
    plot_lines({"Share of flowers told right": lines}, out / "quickstart_iris.png")

    data = large_data()
    stopped = fit_all_rows(data)
    say(stopped.report)
    batches = fit_minibatches(data)
    mean = batches.sample(1000)["posterior"]["mu"].mean(["chain", "draw"]).to_numpy()
    say(batches.report, f"means off by {np.abs(mean - data.mean(0)).max():.4f} at most")
    plot_lines({"Loss of a batch, nats": {"loss": batches.hist}}, out / "quickstart_minibatch.png")


if __name__ == "__main__":
    mpl.use("agg")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of pictures")
    main(parser.parse_args().out)
