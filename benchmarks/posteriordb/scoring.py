# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Whether draws have the means and sds of the reference."""

import json

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).with_name("reference.json")

#: A fit is right if its means are nearer than this, in sds, and its sds are within these parts of the reference's.
MEAN_ERROR, SMALLEST_SD, LARGEST_SD = 0.2, 0.8, 1.25

Moments = Mapping[str, Mapping[str, np.ndarray]]
"""By variable: its "mean" and "sd"."""


@dataclass(frozen=True)
class Score:
    """How far draws are from the reference.

    Parameters
    ----------
    mean_error : float
        The largest error of a mean, in sds of the reference.
    smallest_sd, largest_sd : float
        Sds of the draws over those of the reference.
    """

    mean_error: float
    smallest_sd: float
    largest_sd: float

    @property
    def right(self) -> bool:
        """Whether every mean and every sd is near that of the reference; False for nan."""
        return (
            self.mean_error < MEAN_ERROR
            and self.smallest_sd > SMALLEST_SD
            and self.largest_sd < LARGEST_SD
        )


@cache
def references() -> dict[str, Moments]:
    """Read the moments of every posterior, by its name."""
    found = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return {
        posterior: {
            variable: {name: np.asarray(value, "float64") for name, value in of.items()}
            for variable, of in moments.items()
        }
        for posterior, moments in found.items()
    }


def score(draws: Mapping[str, np.ndarray], reference: Moments) -> Score:
    """Compare draws with the reference.

    Parameters
    ----------
    draws : mapping of str to array, shape (n_draws, ...)
        By variable; others than those of the reference are not looked at.
    reference : Moments
    """
    errors, ratios = [], []
    with np.errstate(all="ignore"):  # draws of a fit that diverged
        for variable, moments in reference.items():
            values = np.asarray(draws[variable], "float64")
            error = np.abs(values.mean(axis=0) - moments["mean"]) / moments["sd"]
            errors.append(np.ravel(error))
            ratios.append(np.ravel(values.std(axis=0) / moments["sd"]))
        ratio = np.concatenate(ratios)
        largest = np.concatenate(errors).max()
    return Score(float(largest), float(ratio.min()), float(ratio.max()))
