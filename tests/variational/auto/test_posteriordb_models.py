# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The benchmark of posteriordb: its models of eight schools, its scores, and what it takes for a warning."""

from __future__ import annotations

import json
import logging
import sys
import warnings
import zipfile

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scipy import stats

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))

from posteriordb.data import WITHIN, find_folder, read_data  # noqa: E402
from posteriordb.models import MODELS, build_model  # noqa: E402
from posteriordb.peer import Fitted, fit_and_score  # noqa: E402
from posteriordb.report import FLAGGED, RIGHT, WRONG, Fit  # noqa: E402
from posteriordb.scoring import references, score  # noqa: E402

CENTERED, NONCENTERED = (
    f"eight_schools-eight_schools_{form}" for form in ("centered", "noncentered")
)
NOWHERE = Path("no such folder")  # the data of eight schools lie in the repository
CLOSE = 1e-8  # the logarithm of an integer scale, 5, is computed in single precision
MU, LOG_TAU = -1.5, 0.7
EFFECTS = np.array([0.3, -1.2, 2.0, 0.1, -0.4, 1.1, 0.0, -2.2])


def schools_by_hand(effects_logp: float, theta: np.ndarray) -> float:
    """Log-density of the unconstrained space; log tau has the Jacobian tau."""
    y = np.array([28, 8, -3, 7, -1, 1, 18, 12])
    sigma = np.array([15, 10, 16, 11, 9, 11, 10, 18])
    tau = np.exp(LOG_TAU)
    priors = stats.norm(0, 5).logpdf(MU) + stats.halfcauchy(0, 5).logpdf(tau) + LOG_TAU
    return priors + effects_logp + stats.norm(theta, sigma).logpdf(y).sum()


def test_eight_schools_noncentered() -> None:
    model = build_model(NONCENTERED, NOWHERE)
    logp = model.compile_logp(mode="FAST_COMPILE")
    theta = MU + np.exp(LOG_TAU) * EFFECTS
    right = schools_by_hand(stats.norm.logpdf(EFFECTS).sum(), theta)
    found = logp({"z": EFFECTS, "mu": MU, "tau_log__": LOG_TAU})
    np.testing.assert_allclose(found, right, rtol=CLOSE)


def test_eight_schools_centered() -> None:
    model = build_model(CENTERED, NOWHERE)
    logp = model.compile_logp(mode="FAST_COMPILE")
    right = schools_by_hand(stats.norm(MU, np.exp(LOG_TAU)).logpdf(EFFECTS).sum(), EFFECTS)
    found = logp({"theta": EFFECTS, "mu": MU, "tau_log__": LOG_TAU})
    np.testing.assert_allclose(found, right, rtol=CLOSE)


def test_every_model_has_a_reference() -> None:
    assert set(MODELS) == set(references())
    assert len(MODELS) == 25


def draws_like(posterior: str, shift: float = 0.0, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Draws whose means are off by `shift` sds, and sds by a factor, exactly."""
    standard = np.array([-1.0, 1.0])
    return {
        name: np.multiply.outer(scale * standard + shift, moments["sd"]) + moments["mean"]
        for name, moments in references()[posterior].items()
    }


@pytest.mark.parametrize(
    ("shift", "scale", "right"),
    [
        (0, 1, True),
        (0.19, 1, True),
        (-0.21, 1, False),
        (0, 0.81, True),
        (0, 0.79, False),
        (0, 1.24, True),
        (0, 1.26, False),
        (np.nan, 1, False),
        (np.inf, 1, False),
    ],
)
def test_score(shift: float, scale: float, right: bool) -> None:
    found = score(draws_like(CENTERED, shift, scale), references()[CENTERED])
    assert found.right is right
    if np.isfinite(shift):
        np.testing.assert_allclose(found.mean_error, abs(shift), atol=1e-12)
        np.testing.assert_allclose([found.smallest_sd, found.largest_sd], scale)


def test_one_wrong_entry_is_enough() -> None:
    draws = draws_like(CENTERED)
    draws["theta"][:, 3] += 0.5 * references()[CENTERED]["theta"]["sd"][3]
    found = score(draws, references()[CENTERED])
    np.testing.assert_allclose(found.mean_error, 0.5)
    assert not found.right


def quiet(model: Any, seed: int, **of_draws: float) -> Fitted:
    return Fitted(draws_like(CENTERED, **of_draws), seconds=1.0)


def deprecating(model: Any, seed: int) -> Fitted:
    warnings.warn("soon to go", DeprecationWarning, stacklevel=1)
    return quiet(model, seed)


def warning(model: Any, seed: int) -> Fitted:
    warnings.warn("it overflows", RuntimeWarning, stacklevel=1)
    return quiet(model, seed)


def logging_(model: Any, seed: int) -> Fitted:
    logging.getLogger("pymc.somewhere").warning("there were divergences")
    return quiet(model, seed)


def doubting(model: Any, seed: int) -> Fitted:
    return Fitted(draws_like(CENTERED), seconds=1.0, doubt="not trusted: it has two modes")


def raising(model: Any, seed: int) -> Fitted:
    raise FloatingPointError("NaN occurred in optimization")


@pytest.mark.parametrize(
    ("fit", "outcome", "flag"),
    [
        (quiet, RIGHT, ""),
        (lambda model, seed: quiet(model, seed, shift=1.0), WRONG, ""),
        (lambda model, seed: quiet(model, seed, shift=np.nan), WRONG, ""),
        (deprecating, RIGHT, ""),
        (warning, FLAGGED, "it overflows"),
        (logging_, FLAGGED, "there were divergences"),
        (doubting, FLAGGED, "not trusted: it has two modes"),
        (raising, FLAGGED, "FloatingPointError: NaN occurred in optimization"),
    ],
)
def test_outcome(fit: Any, outcome: str, flag: str) -> None:
    answer = fit_and_score(fit, None, CENTERED, seed=1)
    found = Fit(CENTERED, "auto", 1, **answer)
    assert (found.outcome, found.flag) == (outcome, flag)


def test_what_to_give_where_there_are_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSTERIORDB", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"'elsewhere' is not a folder.*--data.*POSTERIORDB"
    ):
        find_folder("elsewhere")
    with pytest.raises(FileNotFoundError, match=r"no kidiq\.json in .*--data.*POSTERIORDB"):
        read_data(tmp_path, "kidiq")


def test_data_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.joinpath(WITHIN).mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / WITHIN / "kidiq.json.zip", "w") as archive:
        archive.writestr("kidiq.json", json.dumps({"N": 2, "mom_iq": [99.5, 120]}))
    monkeypatch.setenv("POSTERIORDB", str(tmp_path))
    data = read_data(find_folder(), "kidiq")
    assert data["N"] == 2
    np.testing.assert_array_equal(data["mom_iq"], [99.5, 120])
