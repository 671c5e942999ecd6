# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The options of a fit, and the errors for unknown ones."""

from __future__ import annotations

import inspect
import warnings

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from pytensor.compile.mode import get_mode

from pymc.argument_checks import check_int
from pymc.progress_bar import default_progress_theme
from pymc.pytensorf import resolve_backend_compile_kwargs
from pymc.variational.optimizers import name_of
from pymc.variational.report import Setting

if TYPE_CHECKING:
    from pymc.model.core import Model

__all__ = [
    "N_STEPS",
    "FitOptions",
    "argument_names",
    "backend_name",
    "check_callbacks",
    "check_known",
    "check_no_more",
    "settings_of",
    "take_compile_kwargs",
]

BACKENDS = {"NumbaLinker": "numba", "JAXLinker": "jax", "PerformLinker": "python"}

#: The steps of a fit by default.
N_STEPS = 10_000

#: The part of a fit that reads an option.
Scope = Literal[
    "problem", "target", "start", "steps", "compiler", "display", "budget", "checkpoint"
]

#: The metadata of an option: its scope, and a mark where a checkpoint does not keep its value.
PROBLEM = {"scope": "problem"}
TARGET = {"scope": "target"}
START = {"scope": "start", "unsaved": True}
STEPS = {"scope": "steps"}
COMPILER = {"scope": "compiler"}
DISPLAY = {"scope": "display", "unsaved": True}
BUDGET = {"scope": "budget", "unsaved": True}
CHECKPOINT = {"scope": "checkpoint", "unsaved": True}
UNSAVED = {"unsaved": True}


@dataclass(kw_only=True, eq=False)
class FitOptions:
    """Options of :func:`pymc.fit`, :class:`pymc.Trainer` and ``Trainer.load``.

    The `metadata` of a field have the part of a fit that reads it ("scope"), and "unsaved" where a checkpoint
    does not keep its value. The options of an objective, such as `obj_optimizer`, are those of its `updates`.
    """

    # Model, data and method: a trainer is made for one of each
    n: int = field(default=N_STEPS, metadata=PROBLEM | UNSAVED)
    method: Any = field(default="advi", metadata=PROBLEM)
    model: Model | None = field(default=None, metadata=PROBLEM | UNSAVED)
    batch_size: int | Mapping[str, int] | None = field(default=None, metadata=PROBLEM | UNSAVED)
    data: Any = field(default=None, metadata=PROBLEM | UNSAVED)
    data_name: str = field(default="batch", metadata=PROBLEM)
    dataloader: Any = field(default=None, metadata=PROBLEM | UNSAVED)
    # What is fitted
    inf_kwargs: Mapping[str, Any] | None = field(default=None, metadata=TARGET)
    guide: Any = field(default=None, metadata=TARGET)
    groups: Any = field(default=False, metadata=TARGET)
    objective: Any = field(default=None, metadata=TARGET)
    n_particles: int = field(default=1, metadata=TARGET)
    gradient: str | None = field(default=None, metadata=TARGET)
    reduction: str | None = field(default=None, metadata=TARGET)
    params: Sequence[Any] | None = field(default=None, metadata=TARGET)
    # Where it starts; a checkpoint has the parameters and generators themselves
    random_seed: Any = field(default=None, metadata=START)
    start: Mapping[str, Any] | None = field(default=None, metadata=START)
    start_sigma: Mapping[str, Any] | None = field(default=None, metadata=START)
    # How it takes its steps
    score: bool | None = field(default=None, metadata=STEPS)
    callbacks: Sequence[Callable] | None = field(default=None, metadata=STEPS | UNSAVED)
    average: float | None = field(default=None, metadata=STEPS)
    until: Any = field(default=None, metadata=STEPS)
    include_transformed: bool = field(default=False, metadata=STEPS)
    backend: str | None = field(default=None, metadata=STEPS)
    compile_kwargs: Mapping[str, Any] | None = field(default=None, metadata=COMPILER)
    fn_kwargs: Mapping[str, Any] | None = field(default=None, metadata=COMPILER)
    # Those of one call alone
    progressbar: bool | str = field(default=True, metadata=DISPLAY)
    progressbar_theme: Any = field(default=default_progress_theme, metadata=DISPLAY)
    max_gradients: int | None = field(default=None, metadata=BUDGET)
    max_seconds: float | None = field(default=None, metadata=BUDGET)
    cores: int | None = field(default=None, metadata=BUDGET)
    checkpoint: Any = field(default=None, metadata=CHECKPOINT)
    checkpoint_every: int | None = field(default=None, metadata=CHECKPOINT)
    keep: int | None = field(default=None, metadata=CHECKPOINT)

    def __post_init__(self) -> None:
        self.n_particles = check_int(self.n_particles, "n_particles", "pm.fit")

    @classmethod
    def names(cls, *scopes: Scope) -> tuple[str, ...]:
        """Return the names of the options of some scopes, in their order."""
        return tuple(f.name for f in fields(cls) if f.metadata["scope"] in scopes)

    @classmethod
    def unsaved_names(cls) -> frozenset[str]:
        """Return the names of the options that no checkpoint keeps."""
        return frozenset(f.name for f in fields(cls) if "unsaved" in f.metadata)

    @classmethod
    def select(cls, options: Mapping[str, Any], *scopes: Scope) -> dict[str, Any]:
        """Return those of some options that are of some scopes."""
        names = cls.names(*scopes)
        return {name: value for name, value in options.items() if name in names}

    def changed(self, *scopes: Scope) -> dict[str, Any]:
        """Return the options of some scopes that are not at their defaults."""
        values = ((f, vars(self)[f.name]) for f in fields(self) if f.metadata["scope"] in scopes)
        # Of two arrays != is no bool; no default is one
        return {
            f.name: value
            for f, value in values
            if type(value) is not type(f.default) or value != f.default
        }


#: The most names that a message lists.
FEW = 10

#: By an argument of functions that take it: names in other libraries, without underscores, and what to write here.
ADVICE = {
    "obj_optimizer": {
        "lr learningrate stepsize initlr": (
            "The rate is the optimizer's: write obj_optimizer=pm.adam(learning_rate={value})"
        ),
        "optimizer optimiser opt optim solver": (
            "Write obj_optimizer='tuned', or pm.adam(learning_rate=0.01), pm.sgd and others"
        ),
        "scheduler lrscheduler schedule lrschedule": (
            "A schedule is the optimizer's rate: write obj_optimizer='tuned', or "
            "obj_optimizer=pm.adam(learning_rate=pm.variational.schedules.cosine_decay(0.01, n))"
        ),
    },
    "callbacks": {
        "epochs maxepochs nepochs numepochs epoch": (
            "A fit is counted in steps of a batch each: {value} epochs are "
            "n = {value} * math.ceil(N / batch_size) steps, of N rows"
        ),
        "niter niters numiter numiters iter iters iterations niterations numiterations maxiter "
        "maxiters maxiterations nsteps numsteps steps maxsteps step trainsteps numtrainsteps": (
            "The number of steps is n, the first argument: write n={value}"
        ),
        "draws tune chains": "That is pm.sample's: draws of a fit are approx.sample(1000)",
        "cores threads nthreads numthreads njobs": (
            "Steps take one thread; those of passes over all rows are pm.fit(method='auto', cores={value})"
        ),
        "checkpoint checkpoints checkpointevery checkpointdir checkpointpath ckptpath savedir": (
            "Checkpoints are a trainer's: pm.Trainer(dataloader=...).fit(n, checkpoint='fits')"
        ),
    },
    "until": {
        "patience earlystopping earlystop tol tolerance mindelta rtol atol abstol reltol eps": (
            "A fit ends early by until='stationary', or "
            "until=pm.variational.callbacks.CheckStationarity(tolerance=0.1); by held-out rows, by "
            "callbacks=[pm.callbacks.EarlyStopping(validation, patience=5)]"
        ),
    },
    "random_seed": {"seed rngkey key randomstate rng rngseed": "Write random_seed={value}"},
    "batch_size": {
        "batchsize minibatch minibatchsize minibatches nbatch": (
            "Write batch_size=..., rows of a batch"
        ),
    },
    "obj_n_mc": {
        "nsamples numsamples mcsamples nmc nummcsamples samplesperstep nelbo numelbosamples": (
            "Draws of a step are obj_n_mc={value}"
        ),
    },
    "n_particles": {"numparticles particles k": "Write n_particles={value}"},
    "total_grad_norm_constraint": {
        "gradclip clip clipnorm clipgradnorm gradientclipval maxnorm maxgradnorm": (
            "Write total_grad_norm_constraint={value}"
        ),
    },
    "progressbar": {
        "verbose progress progressbars disableprogress quiet showprogress": (
            "Write progressbar=True, progressbar=False or progressbar='plot'"
        ),
    },
    "start": {
        "init initvals initialvalues initialvals startvals": (
            "Write start={{'mu': ...}} by the names of variables"
        ),
        "localrv": (
            "A variable of each row has dims of the rows: pm.Normal('z', dims='obs'), and pm.fit "
            "keeps its parameters; pm.Amortized computes them from data"
        ),
    },
    "backend": {"device devices accelerator platform gpu gpus": "Write backend='jax'"},
    "data": {
        "shuffle numworkers dataloader loader trainloader": (
            "Batches that are read are data=pm.DataLoader(rows, batch_size=..., shuffle=True)"
        ),
    },
}

KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def argument_names(cls: type, method: str) -> frozenset[str] | None:
    """Return the names of the arguments of a method and of the methods of its bases that it passes them on to.

    None if the last one of them takes any name.
    """
    names: set[str] = set()
    for base in cls.__mro__:
        if method not in vars(base):
            continue
        parameters = inspect.signature(getattr(base, method)).parameters.values()
        names.update(p.name for p in parameters if p.kind in KINDS)
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters):
            return frozenset(names - {"self"})
    return None


def check_known(where: str, given: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise a TypeError for unknown arguments of `where`, the function that the user called.

    The message has the name here of an argument of other libraries; else names that are near, or all if they
    are few.
    """
    known = sorted(set(names) - {"self"})
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    got = ", ".join(f"{name}={given[name]!r}" for name in unknown)
    # "A fit" is that of an instance
    listed = "pm.ADVI.fit" if " " in where else f"pm.{where.removeprefix('pm.')}"
    advice = dict.fromkeys(_advice(name, given[name], known, listed) for name in unknown)
    raise TypeError(f"{where} got {got}, which nothing in a fit takes. {'. '.join(advice)}")


def check_no_more(where: str, given: Mapping[str, Any]) -> None:
    """Raise a TypeError for arguments of a fit that goes on with those that it has."""
    if given:
        raise TypeError(
            f"{where} got {', '.join(f'{name}={value!r}' for name, value in given.items())}, and takes n, "
            "progressbar and progressbar_theme: it goes on with the optimizer, the callbacks and all else of "
            "the last fit. For others write fit(n, obj_optimizer=pm.adam(learning_rate=0.01)), which starts "
            "from the parameters as they are"
        )


def _advice(name: str, value: Any, known: Sequence[str], listed: str) -> str:
    """Return what to write for an argument of another library, or a misspelt one."""
    bare = name.lower().replace("_", "").replace("-", "")
    for argument in ADVICE.keys() & known:
        for names, instead in ADVICE[argument].items():
            if bare in names.split():
                return instead.format(value=repr(value))
    near = get_close_matches(name, known)
    if near:
        return f"Near it are {', '.join(near)}"
    if len(known) <= FEW:
        return f"It takes {', '.join(known)}"
    return f"help({listed}) lists what it takes"


def check_callbacks(callbacks: Any) -> tuple[Callable, ...]:
    """Return the argument `callbacks` of a fit as a tuple; a TypeError if one cannot be called."""
    if callable(callbacks):
        raise TypeError(f"callbacks={callbacks!r} of a fit has to be a list: write callbacks=[...]")
    for callback in callbacks or ():
        if not callable(callback):
            raise TypeError(
                f"callbacks of a fit has {callback!r}, which cannot be called: each is a function "
                "of (approx, losses, i)"
            )
    return tuple(callbacks or ())


def take_compile_kwargs(backend: str | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take the arguments of the compiler out of those of a fit."""
    given = kwargs.pop("compile_kwargs", None)
    if (old := kwargs.pop("fn_kwargs", None)) is not None:
        warnings.warn(
            "`fn_kwargs` is deprecated and will be removed in future versions. Use "
            "`compile_kwargs` instead.",
            DeprecationWarning,
        )
        given = old
    return resolve_backend_compile_kwargs(backend, given)


def backend_name(mode: Any) -> str:
    """Return the name of the backend of a mode in reports: "numba", "jax", "python" or "c"."""
    return BACKENDS.get(type(get_mode(mode).linker).__name__, "c")


def settings_of(kwargs: Mapping[str, Any]) -> dict[str, Setting]:
    """Return the arguments of a fit as numbers and text, for a file of results."""
    return {
        name: value if isinstance(value, str | int | float | bool) else name_of(value)
        for name, value in kwargs.items()
        if value is not None
    }
