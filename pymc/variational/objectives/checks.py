# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Which models an objective of particles can be about."""

from __future__ import annotations

from collections.abc import Sequence

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.traversal import ancestors

from pymc.minibatch.current_length import current_length
from pymc.minibatch.plates import model_indexes
from pymc.variational.guides.base import Guide
from pymc.variational.guides.unnumbered_rows import scaled_axes
from pymc.variational.objectives.base import Objective, Setting
from pymc.variational.objectives.terms import Term

__all__ = ["check_plates", "check_reparametrised", "check_upper_bound"]


def check_plates(setting: Setting, objective: Objective) -> None:
    """Raise where a bound of particles cannot be taken row by row.

    Raises
    ------
    ValueError
        The message says why, and offers the ELBO.
    """
    if not objective.of_particles:
        return
    plates = setting.local_plates
    instead = "objective='elbo' with obj_n_mc draws is right for it"
    if not plates:
        if setting.n_particles > 1:
            _check_all_rows(setting, objective, instead)
        return
    if len(plates) > 1 or len(plates[0]) > 1:
        names = [" x ".join(str(rows.dim) for rows in plate) for plate in plates]
        raise ValueError(
            f"objective {objective.name!r} is a bound for each row of one plate, but latent variables "
            f"are on {', '.join(names)}: {instead}"
        )
    scaled = scaled_axes(setting.model)
    for term in setting.terms:
        if term.mixed:
            raise ValueError(
                f"objective {objective.name!r} is a bound for each row, but the rows of {term.name!r} "
                f"cannot be told apart: {term.mixed}. A model whose rows are coupled has no bound by "
                f"row; {instead}"
            )
        if term.plate != plates[0] and _depends_on_rows(setting, term):
            dims = ", ".join(str(rows.dim) for rows in term.plate)
            raise ValueError(
                f"objective {objective.name!r} is a bound for each row of {plates[0][0].dim!r}, but "
                f"{term.name!r}, which depends on the variables of these rows, is on the plate {dims}: "
                f"{instead}"
            )
        inside = any(one.name == term.name and one.axis in term.within for one in scaled)
        if inside and _depends_on_rows(setting, term):
            raise ValueError(
                f"objective {objective.name!r} is a bound for each row of {plates[0][0].dim!r}, but "
                f"{term.name!r} is scaled by total_size within these rows, which would stand inside of "
                f"the logsumexp over particles: {instead}"
            )


def _check_all_rows(setting: Setting, objective: Objective, instead: str) -> None:
    """Raise where globals alone would be weighed by a part of the rows."""
    scaled = scaled_axes(setting.model)
    if not scaled and not model_indexes(setting.model):
        return
    by_hand = (
        f" ({scaled[0].name!r} has total_size={current_length(scaled[0].total)})" if scaled else ""
    )
    raise ValueError(
        f"objective {objective.name!r} with n_particles={setting.n_particles} on minibatches{by_hand} "
        "needs latent variables of the rows: of globals alone the scale N/B would stand inside "
        f"of the logsumexp over particles, which is no bound. Use all rows, or {instead}"
    )


def _depends_on_rows(setting: Setting, term: Term) -> bool:
    local = {site.value for site in setting.sites if site.plate}
    return not local.isdisjoint(ancestors([term.logp]))


def check_upper_bound(
    setting: Setting, objective: Objective, trained: Sequence[SharedVariable] = ()
) -> None:
    """Raise where what is minimised would be no upper bound, or not one for the guides alone.

    Parameters
    ----------
    setting : Setting
    objective : Objective
    trained : sequence of SharedVariable
        What is minimised for besides the parameters of the guides.

    Raises
    ------
    ValueError
        The message says what to take instead.
    """
    if not objective.is_upper:
        return
    name = f"objective {objective.name!r} of pm.fit"
    if setting.n_particles == 1:
        raise ValueError(
            f"{name} with n_particles=1 is the ELBO, a lower bound, whose minimum is no posterior: an "
            "upper bound needs particles. Write n_particles=64, or more, or take objective='elbo'"
        )
    trained = [*setting.model_parameters, *trained]
    if trained:
        raise ValueError(
            f"{name} bounds log p(x) from above. Its minimum for parameters of the model, here "
            f"{', '.join(repr(var.name) for var in trained)}, makes the data as unlikely as it can: take "
            "a lower bound for them, such as objective='iwae'"
        )
    if setting.local_plates and len(setting.local_guides) < len(setting.guides):
        rvs = [site.name for site in setting.sites if not site.plate]
        raise ValueError(
            f"{name} bounds each row from above, but the part of the global variables "
            f"{', '.join(map(repr, rvs))} is a lower bound, so that the sum is neither: take "
            "objective='elbo', 'iwae', or pm.Renyi(alpha=0.5)"
        )


def check_reparametrised(guides: Sequence[Guide], objective: Objective) -> None:
    """Raise where an objective needs gradients through draws that have none.

    Raises
    ------
    ValueError
        The message names the variables, and an objective without that need.
    """
    needs = objective.needs_reparametrisation
    # The draws of globals are held only where nothing is of a row
    with_rows = any(guide.sites[0].plate for guide in guides)
    names = [
        site.name
        for guide in guides
        for site in guide.sites
        if not guide.reparametrised and (needs or (with_rows and not site.plate))
    ]
    if not names:
        return
    instead = "use objective='rws', which weighs draws" if needs else "sum it out of the model"
    raise ValueError(
        f"objective {objective.name!r} needs gradients through draws{'' if needs else ' of globals'}, but "
        f"the guide of {', '.join(map(repr, names))} draws from a distribution that has none, as those of "
        f"discrete variables are: {instead}, or a distribution that is a function of noise, such as "
        "pm.Normal or pm.LogNormal"
    )
