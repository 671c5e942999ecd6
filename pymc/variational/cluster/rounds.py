# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
r"""Rounds of steps on workers: partitioned variational inference.

The guide :math:`q = \prod_k t_k` has a factor for each of K parts of the rows, with natural parameters
:math:`\eta_k` that add up to those of q. In a round, the worker of part k minimises

.. math::

    L_k = a_k F_k - \eta_{-k} \cdot \mathbb E_q[T] - (1 - a_k) H(q)

over the parameters of q by ordinary steps: :math:`a_k = n_k / N` is its part of the rows, :math:`F_k` the negative bound of
its rows scaled to all, :math:`\eta_{-k}` those of the other factors, and T are the statistics of q. So the likelihood of the part
counts once, and an :math:`a_k`-th part of the prior. Then :math:`\eta_k` changes as the natural parameters of q did.

At a fixed point the gradients of all :math:`L_k` are 0, and add up to that of the negative bound of all
rows, since :math:`\nabla H = -\eta \cdot \nabla \mathbb E_q[T]`: it is the optimum of a fit in one process, whatever the rows of
the parts are like (Bui et al. 2018). An average of the workers' parameters is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pytensor
import pytensor.tensor as pt

from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import graph_inputs
from pytensor.tensor.type import TensorType

from pymc.data_loading.batch import Position
from pymc.data_loading.data_loader import DataLoader, shard_bounds
from pymc.minibatch.stream_index import loader_placeholders
from pymc.variational.averaging import TailAverage
from pymc.variational.cluster.gradients import GradientProgram, GradientsOfWorkers, why_no_rounds
from pymc.variational.cluster.steps import StepsOnWorkers
from pymc.variational.cluster.workers import Rounds
from pymc.variational.engine.batch_feed import BatchFeed, PreparedBatches
from pymc.variational.engine.drivers import State
from pymc.variational.engine.drivers.base import Run
from pymc.variational.engine.step import host_value
from pymc.variational.engine.step_cache import Step
from pymc.variational.fit_objective import FitObjective, Gradients, loss_factor
from pymc.variational.fitting import FitState
from pymc.variational.guides.base import NormalGuide, ParamValues
from pymc.variational.objectives.base import Losses
from pymc.variational.placeholders import make_feed
from pymc.variational.report import NONFINITE_ADVICE, Setting, Verdict

__all__ = ["FactorsOfWorkers", "RoundProgram", "check_parts_of_rounds", "put_in_rounds"]

#: The last part of the steps of a round whose coordinates are averaged, since the noise of all factors adds up
AVERAGED = 0.5

#: The largest precision of a factor, as a part of that of the guide. Those of log-concave likelihoods are below 1; one
#: beyond is noise, and would let the means of other factors run away
LARGEST = 1.5

#: Of rounds of a full-rank guide that stand still
DOUBT = Verdict(
    None,
    "the parameters stand still, but rounds of a full-rank guide may do so with other standard deviations, by the noise of "
    "their steps",
    "Compare with the posterior of all rows, by pm.variational.diagnose, or leave exchange out; pm.Trainer('auto', ...) "
    "has covariances too",
    converged=False,
)

#: The most times that the damping of a round is halved
MOST_HALVINGS = 60


def check_parts_of_rounds(exchange: Rounds, loader: DataLoader) -> None:
    """Raise if the rows of a factor are fewer than a batch."""
    n_factors = exchange.factors or 1
    smallest = loader.total_size // n_factors
    if smallest < loader.batch_size:
        raise ValueError(
            f"exchange={exchange} of pm.Trainer cuts the {loader.total_size} rows into {n_factors} parts, and each has "
            f"to have a batch at least, of batch_size={loader.batch_size} rows: write a smaller batch_size of the "
            f"loader, such as {max(1, smallest // 10)}, or fewer factors"
        )


class _LocalLoss(FitObjective):
    """The loss of a factor, times N / n of its n rows: its gradients are of the size of those of all rows.

    Attributes
    ----------
    share : SharedVariable
        The part of the rows.
    cavity, center : SharedVariable
        Natural parameters of the other factors, of z - center.
    origin : dict of Parameter to SharedVariable
        The parameters at the beginning of the round, to which those that steps change are relative.
    """

    share: SharedVariable
    cavity: SharedVariable
    center: SharedVariable
    origin: dict[Any, SharedVariable]

    def absolute(self, param_values: ParamValues) -> ParamValues:
        """Return the parameters of the guides from those that steps change, which are relative to the origin."""
        found = dict(param_values)
        for guide in normal_guides(self.approx):
            found |= guide.absolute(param_values, self.origin)
        return found

    def losses(
        self,
        param_values: ParamValues,
        n_outer: int = 1,
        more_replacements: Mapping[Variable | str, Any] | None = None,
    ) -> Losses:
        return super().losses(self.absolute(param_values), n_outer, more_replacements)

    def gradients(
        self,
        dense: Sequence[SharedVariable],
        n_outer: int = 1,
        more_replacements: Mapping[Variable | str, Any] | None = None,
    ) -> Gradients:
        found = super().gradients(dense, n_outer, more_replacements)
        param_values = self.absolute(self.approx.storage.param_values({}))
        more, first, start = [], 0, 0
        for guide in normal_guides(self.approx):
            last = first + guide.layout.size
            end = start + n_numbers(self.approx, guide)
            statistics = guide.statistics(param_values, self.center[first:last])
            statistics = pt.specify_shape(statistics, (end - start,))
            more.append(-(self.cavity[start:end] * statistics).sum())
            more.append(-(1 - self.share) * guide.entropy(param_values))
            first, start = last, end
        factor = loss_factor(self.approx.model, self.reduction) / self.share
        gradients = pytensor.grad(pt.add(*more) * factor, list(dense))
        return found._replace(dense=[a + b for a, b in zip(found.dense, gradients, strict=True)])


class FactorsOfWorkers(GradientsOfWorkers):
    """The objective of a fit in rounds: its step holds values alone, which the driver sets.

    Attributes
    ----------
    factors : SharedVariable
        Natural parameters of each factor, shape (n_factors, n).
    optimizers : SharedVariable
        State of the optimizer of each factor, shape (n_factors, n).
    states : list of SharedVariable
        That of one factor, in a worker's step.
    within : TailAverage
        The average of coordinates within a round, in a worker's step.
    local : tuple of dict and Variable
        Updates and loss of a worker's step.
    """

    exchange: Rounds
    factors: SharedVariable
    optimizers: SharedVariable
    local: tuple[dict[SharedVariable, Variable], Variable]
    loss: _LocalLoss
    average: TailAverage | None
    states: list[SharedVariable]
    within: TailAverage

    @classmethod
    def in_rounds(cls, other: Any, exchange: Rounds) -> FactorsOfWorkers:
        """Return the objective for the same fit."""
        if isinstance(other, FitObjective) and (reason := why_no_rounds(other)):
            raise NotImplementedError(
                f"exchange={exchange} of pm.Trainer adds up natural parameters of normal distributions, {reason}. "
                "Leave exchange out: workers then send gradients, which is right for all fits"
            )
        found = cls.of(other)
        assert isinstance(found, FactorsOfWorkers)
        found.exchange = exchange
        return found

    def settings(self) -> dict[str, Any]:
        """Return the objective's entries in the report of a fit."""
        return {**super().settings(), "exchange": repr(self.exchange)}

    def updates(  # type: ignore[override]  # all but the average are passed on
        self, average: TailAverage | None = None, **kwargs: Any
    ) -> tuple[dict[SharedVariable, Variable], Variable | None]:
        if trained := kwargs.get("more_obj_params"):
            raise TypeError(
                f"more_obj_params={list(trained)!r} of Trainer.fit are in no factor of exchange={self.exchange}: leave "
                "exchange out, or these parameters"
            )
        approx, floatX = self.approx, pytensor.config.floatX
        self.params, self.average = self.dense(), average
        guides = normal_guides(approx)
        n = sum(n_numbers(approx, guide) for guide in guides)
        n_means = sum(guide.layout.size for guide in guides)
        self.loss = _LocalLoss(approx, self.objective, self.n_particles, self._reduction)
        self.loss.share = pytensor.shared(np.array(1, floatX), "share")
        self.loss.cavity = pytensor.shared(np.zeros(n, floatX), "cavity", shape=(n,))
        self.loss.center = pytensor.shared(np.zeros(n_means, floatX), "center", shape=(n_means,))
        self.loss.origin = {
            key: pytensor.shared(var.get_value(), f"{var.name}_origin", shape=var.type.shape)
            for key, var in approx.storage.dense.items()
        }
        updates, loss = self.loss.updates(**kwargs)
        assert loss is not None  # an ELBO has one
        self.states = [var for var in updates if var not in set(self.params)]
        coordinates = pytensor.shared(np.zeros(n, floatX), "coordinates", shape=(n,))
        self.within = TailAverage.of([coordinates], AVERAGED)
        updates = self.within.updates({**updates, coordinates: self._coordinates(updates)})
        self.local = updates, loss
        self.graph = [loss, *updates.values()]
        self.watched = self._read_only(updates)
        n_factors = self.exchange.factors or 1
        state = flat([host_value(var) for var in self.states])
        self.factors = pytensor.shared(np.zeros((n_factors, n)), "factors")
        self.optimizers = pytensor.shared(np.tile(state, (n_factors, 1)), "optimizers")
        self.received = self.factors  # what changes by messages
        self.rows, self.row_updates, self.row_settings, self.pending = [], [], [], []
        self.seed = pytensor.shared(np.array(approx.rng.randint(2**30, dtype="int64")), "seed")
        own = [*self.params, self.factors, self.optimizers, self.seed, *variables_of(average)]
        return {var: var for var in own}, loss

    def _coordinates(self, updates: Mapping[SharedVariable, Variable]) -> Variable:
        """Return the coordinates of the guides after a step."""
        new = self.loss.absolute(
            {key: updates[var] for key, var in self.approx.storage.dense.items()}
        )
        found = pt.concatenate([guide.coordinates(new) for guide in normal_guides(self.approx)])
        return pt.specify_shape(found, (self.loss.cavity.type.shape[0],))

    def _read_only(self, updates: Mapping[SharedVariable, Variable]) -> list[SharedVariable]:
        """Return what a worker's step reads beside its batch and what tasks set."""
        stream = loader_placeholders(self.approx.model)
        assert stream is not None
        loss = self.loss
        set_by_tasks = {loss.share, loss.cavity, loss.center, *loss.origin.values()}
        known = {*updates, *self.params, *set_by_tasks, stream[0].state, *stream[1].values()}
        return [
            var
            for var in graph_inputs(self.graph)
            if isinstance(var, SharedVariable)
            and isinstance(var.type, TensorType)
            and var not in known
        ]


@dataclass(eq=False)
class RoundProgram(GradientProgram):
    """The program of workers: the steps of a factor in a round."""

    objective: FactorsOfWorkers
    _feeds: dict[int, BatchFeed] = field(default_factory=dict, init=False)

    def build(self) -> None:
        objective = self.objective
        self.compile(*objective.local)
        shared, loss = self._step.shared, objective.loss
        self._places = [shared.index(var) for var in (loss.share, loss.cavity, loss.center)]
        origin = loss.origin.values()
        self._origin = {shared.index(var): n for n, var in enumerate(origin) if var in shared}
        self._states = [shared.index(var) for var in objective.states]
        self._averages = [shared.index(var) for var in variables_of(objective.within)]

    def run(self, task: Round, item: Factor) -> FactorAfter:
        """Take the steps of a round on the rows of a factor."""
        k, feed, driver = item.number, self._feed(item.number), self._step.driver
        values = self.state(task.start, task.changed, task.seed, k)
        ends = [0, *self._ends]
        for place, n in self._origin.items():
            self._set(values, [place], task.point[ends[n] : ends[n + 1]])
        share = feed.n_rows / self.loader.total_size
        for place, value in zip(self._places, (share, item.cavity, task.center)):
            values[place] = np.asarray(value, self._start[place].dtype)
        self._set(values, self._states, item.optimizer)
        n_last = max(1, round(AVERAGED * task.n_steps))
        empty = np.zeros(item.cavity.size)
        self._set(values, self._averages, np.append(empty, [task.n_steps - n_last, 0]))
        state, losses = tuple(values), []
        row = task.first * feed.batch_size
        feed.position = Position(*divmod(row, feed.n_rows))
        with feed.reading(task.n_steps):
            while n := feed.n_ready():
                batches = feed.prepared(driver, self._step.batch_variables)
                state, some = driver.run(state, n, batches)
                feed.advance(len(some))
                losses.append(some)
                if not np.isfinite(some[-1]):
                    break
        places = self._averages[:1], self._states
        after, optimizer = (flat([state[i] for i in some]) for some in places)
        return FactorAfter(after, optimizer, np.concatenate(losses))

    def _feed(self, k: int) -> BatchFeed:
        if k not in self._feeds:
            part = self.loader.shard(k, self.objective.exchange.factors or 1)
            model = self.objective.approx.model
            self._feeds[k] = make_feed(model, self.loader, self.data_name, part)
        return self._feeds[k]

    def _set(self, values: list[Any], places: Sequence[int], numbers: np.ndarray) -> None:
        """Set several values from one vector."""
        start = 0
        for place in places:
            old = self._start[place]
            part = numbers[start : start + old.size]
            values[place] = np.array(part, old.dtype).reshape(old.shape)
            start += old.size


class Factor(NamedTuple):
    """A factor at the beginning of a round."""

    number: int
    cavity: np.ndarray  # natural parameters of the others, of z - center
    optimizer: np.ndarray  # its state


class FactorAfter(NamedTuple):
    """The coordinates of the guide after the steps of a factor, its optimizer, and the losses."""

    coordinates: np.ndarray
    optimizer: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True, eq=False)
class Round:
    """Task: a round of a factor."""

    point: np.ndarray  # of the parameters
    start: np.ndarray  # the same, relative to itself
    center: np.ndarray  # means of the guide
    first: int  # the number of its first step
    n_steps: int
    seed: int
    #: Values that have changed since the program was sent, by their place among those watched
    changed: Mapping[int, Any]

    def __call__(self, program: RoundProgram, item: Factor) -> FactorAfter:
        return program.run(self, item)


class RoundsOnWorkers(StepsOnWorkers):
    """Driver that takes steps in rounds of factors, while there is a pool of workers.

    The step is not run: its shared variables hold what a fit goes on from.
    """

    name = "rounds"

    def __init__(self, step: Step, objective: FactorsOfWorkers, feed: BatchFeed, n_rows: int):
        super().__init__(step, objective, feed, 0)
        self._objective, self._exchange = objective, objective.exchange
        self._guides = normal_guides(objective.approx)
        self._updated = [] if step.graph is None else list(step.graph.updated)
        self._updated = [step.shared.index(step.inputs[i]) for i in self._updated]
        place = step.shared.index
        self._factors, self._optimizers = place(objective.factors), place(objective.optimizers)
        self._average = [place(var) for var in variables_of(objective.average)]
        bounds = shard_bounds(n_rows, self._exchange.factors or 1)
        self._shares = np.array([(end - start) / n_rows for start, end in bounds])
        self.n_rounds = self.n_damped = self.n_split = self.last_split = 0

    @property
    def damping(self) -> float:
        """The part of the changes of a round that is added.

        The mean of a mean-field guide changes by up to K times what is right, in the direction in which variables
        are most correlated, if K equal factors add their changes: at 2 / K that still converges.
        """
        n = self._exchange.factors or 1
        return self._exchange.damping or (min(0.5, 2 / n) if n > 1 else 1.0)

    @property
    def settings(self) -> dict[str, Setting]:
        """What a report says of the rounds of this process."""
        found: dict[str, Setting] = {"rounds": self.n_rounds, "damping": self.damping}
        more = {"rounds_damped_more": self.n_damped, "factors_split_anew": self.n_split}
        return found | {name: n for name, n in more.items() if n}

    def load(self, shared: Sequence[SharedVariable]) -> State:
        return tuple(host_value(var) for var in shared)

    def store(self, state: State, shared: Sequence[SharedVariable]) -> None:
        for i in self._updated:
            shared[i].container.storage[0] = state[i]

    def copy(self, state: State) -> State:
        return tuple(np.copy(v) if i in self._updated else v for i, v in enumerate(state))

    def compile(self, state: State) -> None:
        """Do nothing: workers compile."""

    def prepare_batches(self, values: tuple[np.ndarray, ...]) -> Any:
        return values

    def run(self, state: State, n_steps: int, batches: PreparedBatches | None = None) -> Run:
        """Take a round of steps."""
        values, losses = self._round(list(state), self._feed.n_used, n_steps)
        self.n_rounds += 1
        return Run(tuple(values), losses)

    def doubt(self) -> Verdict | None:
        """Return the verdict of rounds that stand still, where factors were split anew in their second half."""
        if self.n_split == 0 or self.last_split < self.n_rounds // 2:
            return None
        return Verdict(
            None,
            f"the parameters stand still, but factors were split anew, at last in round {self.last_split + 1} of "
            f"{self.n_rounds}: some rows determine more than all together, by noise or since the likelihood is not "
            "log-concave, and rounds that are split anew end with other standard deviations",
            "Mix the rows of the files, take larger batches, or leave exchange out",
            converged=False,
        )

    def _round(self, values: list[Any], first: int, n_steps: int) -> tuple[list[Any], np.ndarray]:
        """Return the values after a round, and the losses of its steps."""
        if self.pool is None:
            raise RuntimeError(
                "The workers of a fit end with each call of it: write trainer.fit(n) for more steps"
            )
        old = [np.asarray(values[i]) for i in self._dense]
        point, natural = flat(old), self._natural(old)
        factors = values[self._factors]
        before = self._of_natural(factors.sum(axis=0))
        # At the start of a fit, where the user has set parameters, and after rounds too noisy to go on from
        is_new = before is None or any((a != b).any() for a, b in zip(before, old))
        limit = LARGEST * factors.sum(axis=0)
        if is_new or any(self._of_natural(limit - factor) is None for factor in factors):
            self.n_split += not is_new
            self.last_split = self.n_rounds if not is_new else self.last_split
            factors = self._shares[:, None] * natural
        total = factors.sum(axis=0)
        cavities = [self._centered(total - factor, old) for factor in factors]
        items = list(map(Factor, range(len(factors)), cavities, values[self._optimizers]))
        seed, changed = int(values[self._seed]), self._changed()
        task = Round(point, self._relative(old), self._means(old), first, n_steps, seed, changed)
        parts = self.pool.map(task, items, self._check)
        for k, part in enumerate(parts):
            self._check_finite(part, k, first, n_steps)
        new = np.array([self._of_coordinates(part.coordinates) for part in parts])
        factors, params = self._added(factors, new - natural, old)
        after = list(values)
        for i, value in zip(self._dense, params):
            after[i] = value
        after[self._factors] = factors
        after[self._optimizers] = np.array([part.optimizer for part in parts])
        after[self._seed] = np.array(seed + 1)
        self._update_average(after, n_steps)
        return after, self._shares @ np.array([part.losses for part in parts])

    def _added(
        self, factors: np.ndarray, changes: np.ndarray, old: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Add changes to factors, as large a part of them as leaves a distribution. Return the parameters too."""
        part = self.damping
        for n_halved in range(MOST_HALVINGS):
            new = factors + part * changes
            params = self._of_natural(new.sum(axis=0))
            if params is not None and all(np.isfinite(value).all() for value in params):
                self.n_damped += n_halved > 0
                return new, params
            part /= 2
        self.n_damped += 1
        return factors, list(old)

    def _update_average(self, values: list[Any], n_steps: int) -> None:
        """Average the parameters over the last part of the fit, a round like the steps that it has."""
        if not self._average:
            return
        *means, waiting, averaged = self._average
        n_waiting, n_averaged = int(values[waiting]), int(values[averaged])
        n_counted = max(n_steps - n_waiting, 0)
        values[waiting] = np.asarray(max(n_waiting - n_steps, 0), values[waiting].dtype)
        values[averaged] = np.asarray(n_averaged + n_counted, values[averaged].dtype)
        weight = n_counted / max(n_averaged + n_counted, 1)
        for i, param in zip(means, self._dense):
            mean = values[i] + weight * (values[param] - values[i])
            values[i] = mean.astype(values[i].dtype)

    def _check_finite(self, part: FactorAfter, k: int, first: int, n_steps: int) -> None:
        n = len(part.losses)
        if n == n_steps and all(np.isfinite(x).all() for x in part):
            return
        loss = part.losses[-1]
        what = "the parameters after it" if np.isfinite(loss) else f"its loss is {loss}"
        raise FloatingPointError(
            f"NaN occurred in optimization. Step {first + n} of factor {k} is not finite: {what}. The fit is where it was "
            f"before this round of exchange={self._exchange}.\n{NONFINITE_ADVICE}"
        )

    # --- parameters of all guides, and natural ones ---
    def _by_parameter(self, values: Sequence[np.ndarray]) -> dict[Any, np.ndarray]:
        return dict(zip(self._objective.approx.storage.dense, values))

    def _relative(self, values: Sequence[np.ndarray]) -> np.ndarray:
        known = self._by_parameter(values)
        for guide in self._guides:
            known |= guide.relative(known)
        return flat([known[parameter] for parameter in self._objective.approx.storage.dense])

    def _means(self, values: Sequence[np.ndarray]) -> np.ndarray:
        known = self._by_parameter(values)
        return flat([known[guide.params_by_name["mu"]] for guide in self._guides])

    def _natural(self, values: Sequence[np.ndarray]) -> np.ndarray:
        known = self._by_parameter(values)
        return self._of_coordinates(
            np.concatenate([guide.coordinates_of(known) for guide in self._guides])
        )

    def _of_coordinates(self, coordinates: np.ndarray) -> np.ndarray:
        return np.concatenate([guide.natural(part) for guide, part in self._parts(coordinates)])

    def _of_natural(self, natural: np.ndarray) -> list[np.ndarray] | None:
        known: dict[Any, np.ndarray] = {}
        for guide, part in self._parts(natural):
            found = guide.of_natural(part)
            if found is None:
                return None
            known |= found
        params = self._objective.approx.storage.dense.items()
        return [known[parameter].astype(var.dtype) for parameter, var in params]

    def _centered(self, natural: np.ndarray, values: Sequence[np.ndarray]) -> np.ndarray:
        known = self._by_parameter(values)
        parts = self._parts(natural)
        return np.concatenate([g.centered(x, known[g.params_by_name["mu"]]) for g, x in parts])

    def _parts(self, numbers: np.ndarray) -> list[tuple[Any, np.ndarray]]:
        """Return each guide with its natural parameters, or its coordinates."""
        ends = np.cumsum([n_numbers(self._objective.approx, guide) for guide in self._guides])
        return list(zip(self._guides, np.split(numbers, ends[:-1])))


def put_in_rounds(state: FitState, objective: FactorsOfWorkers, n_rows: int) -> FitState:
    """Let a prepared fit take its steps in rounds."""
    assert state.feed is not None
    driver = RoundsOnWorkers(state.step, objective, state.feed, n_rows)
    step = replace(state.step, driver=driver, at_once=objective.exchange.steps)
    has_covariance = any(
        "L_tril" in guide.params_by_name for guide in normal_guides(objective.approx)
    )
    return state._replace(
        step=step,
        report=replace(state.report, driver=driver.name),
        doubt=lambda: DOUBT if has_covariance else driver.doubt(),
    )


def normal_guides(approx: Any) -> list[Any]:
    """Return the guides of an approximation, which are all normal."""
    assert all(isinstance(guide, NormalGuide) for guide in approx.guides)
    return list(approx.guides)


def n_numbers(approx: Any, guide: Any) -> int:
    """Return the number of parameters of a guide, and so of natural ones."""
    return sum(approx.storage.dense[p].get_value(borrow=True).size for p in guide.parameters)


def variables_of(average: TailAverage | None) -> list[SharedVariable]:
    """Return the means of an average, and its counts."""
    return [] if average is None else [*average.means, average.n_waiting, average.n_averaged]


def flat(values: Sequence[Any]) -> np.ndarray:
    """Join arrays to a vector of float64."""
    return np.concatenate([np.zeros(0), *(np.ravel(value).astype("float64") for value in values)])
