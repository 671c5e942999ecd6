# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import inspect

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import pymc._layer as _layer

from pymc.argument_checks import check_int
from pymc.minibatch.group_batches import variables_by_batch
from pymc.model.transform.minibatch import minibatch_model
from pymc.variational.approximation import guided_approximation
from pymc.variational.approximations import Empirical, FullRank, MeanField, check_starts
from pymc.variational.early_stopping import check_until
from pymc.variational.engine.step_cache import one_at_a_time
from pymc.variational.fit_objective import FitObjective
from pymc.variational.fit_options import (
    N_STEPS,
    FitOptions,
    Scope,
    argument_names,
    check_known,
)
from pymc.variational.fitting import Fitting
from pymc.variational.guides.group_mean_field import GroupMeanField
from pymc.variational.guides.lookups import model_parameters
from pymc.variational.objectives import objective_of
from pymc.variational.progress import Compiling
from pymc.variational.tuned import with_named_optimizer


class _Inference(Fitting):
    def __init__(self, op: Any, approx: Any, tf: Any = None, **kwargs: Any) -> None:
        if self.fits_guides(op, approx, tf, kwargs):
            return
        super().__init__(op, approx, tf, **kwargs)  # type: ignore[call-arg]


class _ADVI:
    def __init__(self, **kwargs: Any) -> None:
        check_starts(type(self).__name__, kwargs)
        super().__init__(**kwargs)


class _FullRankADVI:
    def __init__(self, **kwargs: Any) -> None:
        check_starts(type(self).__name__, kwargs)
        super().__init__(**kwargs)


class _SVGD:
    def __init__(
        self,
        n_particles: int = 100,
        jitter: float = 1,
        model: Model | None = None,
        start: Mapping[str, np.ndarray] | None = None,
        random_seed: int | None = None,
        start_sigma: Mapping[str, np.ndarray] | None = None,
        **kwargs: Any,
    ) -> None:
        empirical = Empirical(
            size=n_particles,
            jitter=jitter,
            model=model,
            start=start,
            start_sigma=start_sigma,
            random_seed=random_seed,
        )
        released.ImplicitGradient.__init__(self, empirical, **kwargs)


released = _layer.run_release(
    globals(), Inference=_Inference, ADVI=_ADVI, FullRankADVI=_FullRankADVI, SVGD=_SVGD
)

if TYPE_CHECKING:

    class Inference(Fitting): ...

    from pymc.model.core import Model


class Method(NamedTuple):
    """A method of :func:`fit` that has a name."""

    cls: type
    family: type | None = None  # of the approximation; None for particles
    guide: str = "mean_field"  # of variables that the argument `guide` does not name


#: The name of the method without settings.
AUTO = "auto"

#: The other methods by their names.
METHODS = {
    "advi": Method(released.ADVI, MeanField, "mean_field"),
    "fullrank_advi": Method(released.FullRankADVI, FullRank, "full_rank"),
    "svgd": Method(released.SVGD),
    "asvgd": Method(released.ASVGD),
}


def fit(
    n: int = N_STEPS,
    method: str | Inference = "advi",
    model: Model | None = None,
    random_seed: int | None = None,
    start: Mapping[str, np.ndarray] | None = None,
    start_sigma: Mapping[str, np.ndarray] | None = None,
    inf_kwargs: Mapping[str, Any] | None = None,
    *,
    batch_size: int | Mapping[str, int] | None = None,
    guide: Any = None,
    groups: Any = False,
    objective: Any = None,
    n_particles: int = 1,
    gradient: str | None = None,
    reduction: str | None = None,
    params: Sequence[Any] | None = None,
    data: Any = None,
    data_name: str = "batch",
    backend: str | None = None,
    include_transformed: bool = False,
    **kwargs: Any,
) -> Any:
    """Fit an approximation to the posterior of a model.

    Parameters
    ----------
    n : int
        Number of steps. 0 only initialises. "auto" takes none.
    method : str or :class:`Inference`
        "auto", "advi", "fullrank_advi", "svgd" or "asvgd" in any case, or an instance, which has a model.
        "auto" needs no settings, and reports whether the fit can be trusted. It takes the arguments
        `max_gradients`, `max_seconds` and `cores` of :class:`~pymc.variational.auto.AutoInference`.
    model : :class:`Model`, default the one of the context
    random_seed : int, optional
    start : dict of str to array, optional
        Starting point, by the name of a variable or of its value variable.
    start_sigma : dict of str to array, optional
        Starting standard deviations on the unconstrained space, for "svgd" those of the particles: by the
        name of a variable or of its value variable, such as ``"s_log__"``. One for all entries, or one
        for each.
    inf_kwargs : dict, optional
        More arguments of the method's class.
    batch_size : int or dict of str to int, optional
        Fit on minibatches: :func:`pymc.minibatch_model` turns the model into one of them that shares its
        data. If a callback changes the data by :func:`pymc.set_data`, the next step uses the new ones.
    guide : str, guide, Model, function of a model, list of these, or dict, optional
        The approximating distribution, in place of the method's: "mean_field", "full_rank", "low_rank",
        "row_full_rank", or an object such as :class:`pymc.LowRank` or :class:`pymc.Amortized`. A
        :class:`pymc.Model` has variables named as the latent ones, and its shared variables are
        trained; a function of the model returns one, or writes it in its context. The keys of a dict are
        variables or their names, tuples of them for a guide that they share, and None for all
        others. Variables without a guide get the method's.
    groups : list of str or variable, dict of these to array of int, "auto" or False
        Variables with a value for each group, such as ``effect`` in ``effect[user]``, of which a step takes the
        groups of its batch only: its cost does not grow with their number. "auto" takes all for which
        it can, and which have over four times as many groups as the batch has rows. They are mean-field. A
        dict has the number of rows of each group; by default they are counted in the data, or in a pass over a
        `DataLoader`.
    objective : str or objective, optional
        The loss, in place of the method's: "elbo", "iwae", "rws", or an object such as
        :class:`pymc.Renyi`.
    n_particles : int
        Particles K of the objective, for each row if rows have latent variables. The objective is averaged
        over `obj_n_mc` draws of all particles.
    gradient : {"reparam", "stl", "dreg"}, optional
        The estimator of the gradient: plain, "sticking the landing", doubly reparametrised.
    reduction : {"batch", "sum", "mean"}, optional
        The size of the loss, globals included: of a batch, the default, of all data, or of a row.
    params : list of SharedVariable, optional
        Shared variables of the model to optimise with the guide, such as decoder weights. All others stay
        fixed.
    data : DataLoader, optional
        Fit on a stream: each step takes a batch of it. :class:`pymc.Trainer` does the same, and can go
        on later.
    data_name : str
        The `pm.Data` that holds a batch, if it was made from zeros and not from the loader.
    backend : str, optional
        "numba" and "jax" run many steps in one compiled call, "c" one at a time. Default: the setting of
        `pytensor.config`.
    include_transformed : bool
        Whether :attr:`Approximation.state` has the unconstrained variables too.
    **kwargs
        Arguments of :meth:`Inference.fit`: `callbacks`, `obj_optimizer`, which may be "tuned", `until`, which
        may be "stationary", `average`, `progressbar` and more.

    Returns
    -------
    :class:`Approximation`

    Raises
    ------
    ValueError, TypeError
        If arguments contradict each other or the model. Nothing is compiled then.
    FloatingPointError
        If a loss or a parameter is nan or infinite. To have the approximation up to then, make the
        :class:`Inference` before: ``inference = pm.ADVI(); inference.fit(...)``.

    Notes
    -----
    Fits may run in several threads, also of one model. Each has its own parameters, batches and
    `random_seed`, and takes the steps that it takes alone; they are compiled one after the other. On Numba
    the last bits of losses may differ, as `numba__fastmath` of PyTensor's flags allows. The data belong to the
    model: if a callback changes them by `pm.set_data`, they change for all. Two fits of one model cannot read
    from a loader at once: make a model for each.

    Examples
    --------
    >>> with pm.Model():
    ...     y = pm.Data("y", np.random.default_rng(1).normal(2, 1, size=1000), dims="obs")
    ...     mu = pm.Normal("mu", 0, 10)
    ...     rows = pm.Normal("rows", mu, 1, observed=y, dims="obs")
    ...     approx = pm.fit(
    ...         200,
    ...         batch_size=50,
    ...         obj_optimizer=pm.adam(learning_rate=0.1),
    ...         random_seed=1,
    ...         progressbar=False,
    ...     )
    >>> approx.report.n_steps
    200
    >>> approx.sample(100).posterior["mu"].shape
    (1, 100)
    """
    n = check_int(n, "n", "a fit", at_least=0)
    check_fit_arguments("pm.fit", kwargs, method)
    steps: dict[str, Any] = {}
    if is_auto(method):
        if n != N_STEPS:
            refuse_for_auto({"n": n})
    else:
        steps["n"] = n
        kwargs = with_named_optimizer(n, kwargs)
    check_until(kwargs.get("until"), kwargs.get("average"))
    feed = None
    if data is not None:
        if batch_size is not None:
            raise TypeError(
                f"batch_size={batch_size!r} and data= of pm.fit are two ways to have batches. Those of data "
                "have the batch_size of the loader: write pm.DataLoader(..., batch_size=...), and leave it "
                "out here"
            )
        from pymc.variational.placeholders import make_feed  # only a fit of a stream needs it

        feed = make_feed(model_of(method, model), data, data_name)
    named = METHODS.get(method.lower()) if isinstance(method, str) else None
    if named is not None and named.family is not None:
        check_starts(named.cls.__name__, inf_kwargs or {})
    options = FitOptions(
        method=method,
        model=model,
        random_seed=random_seed,
        start=start,
        start_sigma=start_sigma,
        inf_kwargs=inf_kwargs,
        batch_size=batch_size,
        guide=guide,
        groups=groups,
        objective=objective,
        n_particles=n_particles,
        gradient=gradient,
        reduction=reduction,
        params=params,
    )
    with Compiling(theme=kwargs.get("progressbar_theme"), show=kwargs.get("progressbar", True)):
        inference = make_inference(options)
        return inference.fit(
            **steps, backend=backend, include_transformed=include_transformed, data=feed, **kwargs
        )


def is_auto(method: str | Inference) -> bool:
    """Return True if a method is the one without settings."""
    return isinstance(method, str) and method.lower() == AUTO


def refuse_for_auto(options: Mapping[str, object]) -> None:
    """Raise a TypeError if there are options that a fit without settings does not use."""
    if options:
        got = ", ".join(f"{name}={value!r}" for name, value in options.items())
        raise TypeError(
            f"method='auto' got {got}: it needs no settings, and goes on until its answer stands still. "
            "Leave these out; a budget is max_gradients= or max_seconds="
        )


def check_fit_arguments(
    where: str,
    options: Mapping[str, object],
    method: str | Inference = "advi",
    *,
    is_trainer: bool = False,
) -> None:
    """Raise a TypeError if neither the `fit` of a method nor its objective takes one of the options.

    `where` is the function that the user called. A trainer has the model, the data and the method already.
    """
    cls, objective = released.Inference, FitObjective
    if isinstance(method, released.Inference):
        cls, objective = type(method), type(method.objective)
    of_updates = argument_names(objective, "updates")
    if of_updates is None:  # an operator of the user's own may take any
        return
    scopes: list[Scope] = ["target", "start", "steps", "checkpoint" if is_trainer else "problem"]
    if is_auto(method):
        scopes.append("budget")
    known = {*FitOptions.names(*scopes), *cls.fit_names(), *of_updates}
    known -= {*FitOptions.names("problem")} if is_trainer else {"dataloader"}
    check_known(where, options, known)
    if is_auto(method):
        from pymc.variational.auto import AutoInference  # only this method needs it

        of_auto = inspect.signature(AutoInference.fit).parameters.keys()
        used = {*FitOptions.names("problem", "target", "start", "checkpoint"), *of_auto}
        refuse_for_auto({k: v for k, v in options.items() if k not in used and v is not None})


def model_of(method: str | Inference, model: Model | None = None) -> Model:
    """Return the model that `method` and `model` of :func:`pymc.fit` are about.

    Raises
    ------
    ValueError
        If they are about two.
    """
    if not isinstance(method, released.Inference):
        return released.pm.modelcontext(model)
    if model is not None and model is not method.approx.model:
        raise ValueError(
            f"method={method!r} was made for another model than model={model.name or 'the one given'}, so "
            "that data would go into one, and the other would be fitted. Leave model= out, or make the "
            f"method for it: pm.{type(method).__name__}(model=model)"
        )
    return method.approx.model


@one_at_a_time
def make_inference(options: FitOptions) -> Any:
    """Return the :class:`Inference` that :func:`pymc.fit` runs.

    Raises
    ------
    KeyError, TypeError, ValueError, NotImplementedError
        If there is no such method, or options contradict each other or the model.
    """
    method, model = options.method, options.model
    if options.batch_size is not None:
        model = _on_minibatches(model, options.batch_size, method)
    starts, target = options.changed("start"), options.changed("target")
    # An option that has its default counts as not given
    if is_auto(method):
        used = ("start", "random_seed")
        refuse_for_auto({k: v for k, v in (starts | target).items() if k not in used})
        from pymc.variational.auto import AutoInference  # only this method needs it

        return AutoInference(model, options.start, options.random_seed)
    model = model_of(method, model)
    inf_kwargs = target.pop("inf_kwargs", None)
    if isinstance(method, released.Inference):
        if target:
            raise TypeError(
                f"{', '.join(target)} of pm.fit needs the name of a method, got {method!r}, which has a "
                "guide and an objective already"
            )
        starts.pop("random_seed", None)
        if starts or inf_kwargs is not None:
            names = ", ".join([*starts, *([] if inf_kwargs is None else ["inf_kwargs"])])
            raise TypeError(
                f"{names} of pm.fit would change nothing in method={method!r}, which has been made already: "
                f"write pm.{type(method).__name__}(...) with {names}"
            )
        if options.random_seed is not None:  # of the draws from here on
            method.approx.rng.seed(options.random_seed)
        return method
    known = (
        f"method={method!r} of pm.fit should be one of { {AUTO, *METHODS} } or Inference instance"
    )
    if not isinstance(method, str):
        raise TypeError(known)
    if method.lower() not in METHODS:
        raise KeyError(known)
    starts = {**(inf_kwargs or {}), **starts}
    if not target:
        return METHODS[method.lower()].cls(model=model, **starts)
    return _inference_of_guides(model, options, starts)


def _inference_of_guides(model: Model, options: FitOptions, starts: Mapping[str, Any]) -> Inference:
    """Return a fit of a guide by an objective; the method has the one that is not given."""
    method = METHODS[options.method.lower()]
    if method.family is None:
        raise ValueError(
            f"method={options.method!r} of pm.fit has particles of its own: guide, groups, objective, "
            "n_particles, gradient, reduction and params need one of 'advi', 'fullrank_advi'"
        )
    check_starts(method.cls.__name__, starts)
    objective = "elbo" if options.objective is None else options.objective
    loss = objective_of(objective, options.gradient)
    params = options.params or ()
    guide = _with_groups(model, options.guide, options.groups)
    if guide is None:
        approx = method.family(model=model, **starts)
        approx.model_parameters = model_parameters(model, params)
    else:
        approx = guided_approximation(model, guide, others=method.guide, params=params, **starts)
    cls = method.cls if guide is None and loss.name == "elbo" else released.Inference
    # The class of a method makes an objective itself
    inference = object.__new__(cls)
    released.Inference.__init__(
        inference, loss, approx, n_particles=options.n_particles, reduction=options.reduction
    )
    return inference


def _with_groups(model: Model, guide: Any, groups: Any) -> Any:
    """Add the guide of `groups` to the argument `guide` of :func:`pymc.fit`."""
    if groups is None or groups is False:
        return guide
    if isinstance(groups, str) and groups == "auto":
        groups = variables_by_batch(model)
    elif isinstance(groups, str) or not isinstance(groups, Sequence | Mapping):
        raise TypeError(
            f"groups={groups!r} of pm.fit is a list of variables or their names, 'auto' or False: write "
            f"groups=[{groups!r}]"
        )
    names = tuple(str(getattr(var, "name", var)) for var in groups)
    if not names:
        return guide
    counts = dict(zip(names, groups.values())) if isinstance(groups, Mapping) else None
    by_name: Any = {names: GroupMeanField(counts)}
    if isinstance(guide, Mapping):
        return {**guide, **by_name}
    if isinstance(guide, list | tuple):
        raise TypeError(
            "groups of pm.fit is beside a list of guides: write guide as a dict by variable, with None for all "
            "others"
        )
    return by_name if guide is None else {**by_name, None: guide}


def _on_minibatches(
    model: Model | None, batch_size: int | Mapping[str, int], method: str | Inference
) -> Model:
    if not isinstance(method, str):
        raise TypeError(
            f"batch_size={batch_size!r} of pm.fit needs the name of a method, got {method!r}, "
            "which was made for a model already. Make it for pm.minibatch_model(model, "
            "batch_size=...) and leave batch_size out."
        )
    return minibatch_model(model, batch_size=batch_size)
