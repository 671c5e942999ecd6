# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""A process that fits posteriors by one method: each request is a fit, each answer how it came out."""

import contextlib
import importlib
import logging
import sys
import warnings

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _common import send, serve

import pymc as pm

from posteriordb.models import build_model
from posteriordb.scoring import references, score

N_DRAWS = 4000

#: Warnings that are not about a fit.
NEUTRAL = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)

LONGEST = 200  # characters of a message that are kept


@dataclass(frozen=True)
class Fitted:
    """What a method returns.

    Parameters
    ----------
    draws : mapping of str to array, shape (n_draws, ...)
        Of the posterior, by variable.
    seconds : float
        Of the call, with compilation.
    run_seconds : float, optional
        Without compilation.
    gradients : int, optional
        How often the gradient of the log-density was computed.
    doubt : str
        Why the fit says of itself that it cannot be trusted; empty if it does not.
    """

    draws: Mapping[str, np.ndarray]
    seconds: float
    run_seconds: float | None = None
    gradients: int | None = None
    doubt: str = ""


FitModel = Callable[[pm.Model, int], Fitted]
"""Fits a model with a seed."""


def flatten(posterior: Any) -> dict[str, np.ndarray]:
    """Put the chains of a data set of draws one after the other."""
    draws = {}
    for name, array in posterior.data_vars.items():
        values = np.asarray(array.values)
        draws[str(name)] = values.reshape((-1, *values.shape[2:]))
    return draws


class _Heard(logging.Handler):
    """Keeps what is logged as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Yield a list that gets what is logged and warned within, without what is neutral."""
    heard, root = _Heard(), logging.getLogger()
    root.addHandler(heard)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield heard.messages
        heard.messages += [str(w.message) for w in caught if not issubclass(w.category, NEUTRAL)]
    finally:
        root.removeHandler(heard)


def fit_and_score(fit: FitModel, model: pm.Model, posterior: str, seed: int) -> dict[str, Any]:
    """Fit, and compare with the reference.

    Returns
    -------
    dict
        The fields of :class:`posteriordb.report.Fit`, without what was asked for.
    """
    answer: dict[str, Any] = {}
    with listening() as messages:
        try:
            fitted = fit(model, seed)
        except Exception as error:
            messages.append(f"{type(error).__name__}: {error}")
        else:
            found = score(fitted.draws, references()[posterior])
            answer = {
                "mean_error": _finite(found.mean_error),
                "smallest_sd": _finite(found.smallest_sd),
                "largest_sd": _finite(found.largest_sd),
                "right": found.right,
                "seconds": fitted.seconds,
                "run_seconds": fitted.run_seconds,
                "gradients": fitted.gradients,
            }
            if fitted.doubt:
                messages.insert(0, fitted.doubt)
    return {**answer, "flag": _shortened(messages)}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _shortened(messages: list[str]) -> str:
    lines = [" ".join(message.split()) for message in messages]
    return lines[0][:LONGEST] if lines else ""


def be_peer(settings: dict[str, Any]) -> None:
    """Answer requests for fits by the method of the settings."""
    if hasattr(pm, "_layer") != settings["patched"]:
        wanted = "the patch" if settings["patched"] else "plain PyMC"
        raise RuntimeError(f"to measure {wanted}, but import pymc found {pm.__file__}")
    logging.disable(logging.NOTSET)  # what is logged is part of the result
    module = importlib.import_module(f"posteriordb.{settings['module']}")  # of what only it has
    fit, folder = module.FITS[settings["method"]], Path(settings["folder"])
    send({"pymc": pm.__version__})

    def answer(posterior: str, seed: int) -> dict[str, Any]:
        with contextlib.redirect_stdout(sys.stderr):  # answers go to the standard output
            model = build_model(posterior, folder)
            return fit_and_score(fit, model, posterior, seed)

    serve(answer)
