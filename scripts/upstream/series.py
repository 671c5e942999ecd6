# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The series of commits: what each one brings, and why."""

import ast
import re

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from scripts.upstream.modules import is_shadow
from scripts.upstream.source import definitions, imports

#: Files below ``pymc/`` that only the overlay needs.
OF_OVERLAY = ("_layer.py", "_docstrings.py")

#: Tests below ``tests/`` that are of the overlay, its documentation, its benchmarks or its tools.
NOT_UPSTREAM = re.compile(
    r"conformance\.\w+|same_fits\.py|test_(conformance|docs|docstrings|examples|imports|installed|layer|release|unchanged|upstream)\.py|"
    r"variational/(test_(plate_tutorials|quickstart|tutorial)|auto/test_posteriordb_models)\.py"
)


@dataclass(frozen=True)
class Part:
    """A commit of the series.

    Parameters
    ----------
    title, why : str
        The first line of its message, and the rest.
    modules : str
        A regular expression of the modules that it adds or continues, below ``pymc.``. A module belongs to the
        first part that matches.
    tests : str
        A regular expression of tests that need this part though nothing in their text says so, such as those of
        a step that fit a model.
    overrides : mapping of str to tuple of str
        By a module that a later part continues: the overrides of it that this part has already.
    """

    title: str
    why: str
    modules: str = ""
    overrides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tests: str = ""


#: What changes by hand: a part of a function of the release, and what takes its place.
BY_HAND: dict[str, dict[str, tuple[str, str]]] = {
    "variational/approximations.py": {
        "EmpiricalGroup.create_shared_params": ("np.random.normal(", "self.rng.normal("),
    },
    "variational/callbacks.py": {
        "CheckParametersConvergence.__call__": ("approx.params", "shared_params(approx)"),
    },
}

PARTS = (
    Part(
        "Fix ordered logistic probabilities, jitter of particles, and models with unnamed axes",
        "OrderedLogistic subtracts two sigmoids, which are equal in floats far from 0: its probabilities are 0, "
        "and gradients nan. Compute them by their logs.\n\n"
        "Particles of Empirical and SVGD are drawn by the global generator of NumPy, so that random_seed does "
        "not repeat them. A model with an axis without a name (dims=(None, 'b')) cannot be cloned.",
        r"distributions\.discrete",
        {
            "model/fgraph.py": ("ModelVar.__init__",),
            "variational/approximations.py": ("EmpiricalGroup.create_shared_params",),
        },
    ),
    Part(
        "Add learning-rate schedules to the optimizers of VI",
        "learning_rate takes a function of the step: pm.variational.schedules has cosine and exponential decay, "
        "warm-up, and joins of these. Any function of a symbolic step will do.",
        r"_lazy|argument_checks|variational|variational\.(configurable|number_inputs|schedules|updates)",
    ),
    Part(
        "Add the index of a minibatch, its shuffle, and what its rows become in a graph",
        "One random variable for the rows of a batch, with epochs that are shuffled in O(batch) time and O(1) "
        "memory, the same on Numba, JAX and C. Rules by Op say which axes of a variable hold its rows, so that a "
        "scale follows from the graph and not from a shape.",
        r"minibatch|minibatch\.(shuffle|index|dispatch.*|axis_tracking|axis_rules|lengths|scaling|"
        r"stream_index|rebuild|array_data|at_rows|sum_over_rows)|pytensorf",
    ),
    Part(
        "Infer total_size of pm.Minibatch, and refuse what would be silently wrong",
        "pm.Minibatch slices all its data by one index, and the log-probability is scaled by N/B in the graph, "
        "so that total_size is not needed. What mixes rows, or takes rows of two indexes, is an error at once. "
        "pm.minibatch_model and pm.remove_minibatch lead from a model of all rows to one of minibatches and "
        "back. Samplers, find_MAP and Laplace-like methods refuse a model whose log-probability differs from "
        "call to call; predictions are of all rows. These belong together: without the guards, pm.sample of "
        "such a model would run, and be wrong.",
        r"|minibatch\.(?!group_).*|data|dims\..*|dims|distributions.*|model.*|gp.*|printing|model_graph|"
        r"sampling.*|smc.*|stats.*|tuning.*|variational\.minibatch_rv",
    ),
    Part(
        "Run many steps of a fit in one compiled call",
        "A loop over the step's own graph, compiled by Numba or as a while_loop of JAX, in place of a call of a "
        "function for each step: interruptible, with callbacks at the steps that they ask for. The rewrites and "
        "kernels of engine/ belong to PyTensor, and are here until it has them.",
        r"variational\.(engine.*|memory|warm_up|vectorize|stable_logs|progress|display)",
    ),
    Part(
        "Add optimizers as chains of transforms, and averages of parameters",
        "pm.variational.optimizers has adamw, clipping and weight decay as links of a chain; optax optimizers "
        "fit in. averaging is the average over the last part of a fit.",
        r"variational\.(optim.*|optax.*|tuned|averaging|local_params.*)",
    ),
    Part(
        "Add guides with plates, and objectives over particles",
        "pm.fit(guide=..., objective=...): mean-field, full-rank, low-rank, flows, amortized and users' own models as "
        "guides, with variables of rows and of groups whose cost is that of a batch; ELBO, IWAE, Renyi and wake-sleep. "
        "Group and Operator of the user's own keep the classes that they have.",
        r"minibatch\.group_.*|variational\.(?!auto|checkpoints|cluster|trainer|placeholders|held_out|predictions).*",
        tests=r"variational/(kernels/test_(gather_dot|row_sums|vector_math)|test_(driver_jax|stored_draws|notebook))\.py|"
        r"model/transform/test_bambi\.py",
    ),
    Part(
        "Add method='auto', a fit without settings that says whether it can be trusted",
        "Natural gradients of a normal distribution on the unconstrained space, by fixed draws and a line search; other "
        "starts; then importance sampling and a verdict.",
        r"variational\.auto.*",
    ),
)

#: What belongs into pymc-extras, on top of the rest.
EXTRAS = (
    Part(
        "Add loaders of rows that do not fit in memory",
        "DataLoader shuffles rows of Parquet files, frames and iterables in a window, and feeds them to a fit.",
        r"data_loading.*|variational\.(placeholders|held_out|predictions)",
    ),
    Part(
        "Add the Trainer, with checkpoints that resume bit for bit, and workers",
        "A fit in several calls, over a stream. A checkpoint has arrays, JSON and checksums, and no pickle. Workers of "
        "Ray compute gradients or passes over shards of the rows, with the same bits for any number of them.",
        r"variational\.(checkpoints.*|trainer|cluster.*)",
    ),
)


@dataclass(frozen=True)
class Series:
    """The files of the overlay, and the part that each belongs to."""

    overlay: Path
    parts: tuple[Part, ...] = PARTS + EXTRAS

    @cached_property
    def files(self) -> dict[str, str]:
        """The text of each file by its path below ``pymc/``."""
        folder = self.overlay / "pymc"
        paths = sorted(folder.rglob("*.py"))
        return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}

    @cached_property
    def shadows(self) -> list[str]:
        found = [name for name, text in self.files.items() if is_shadow(text)]
        return [name for name in found if name not in OF_OVERLAY and has_content(self.files[name])]

    @cached_property
    def new(self) -> list[str]:
        return [n for n, text in self.files.items() if not is_shadow(text) and n not in OF_OVERLAY]

    def part_of(self, name: str, override: str = "") -> int:
        """Return the number of the part that has a file, or an override in it."""
        module = ".".join(Path(name).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        for number, part in enumerate(self.parts):
            if override in part.overrides.get(name, ()):
                return number
            if re.fullmatch(part.modules, module):
                return number
        raise ValueError(f"no part of the series has pymc/{name}: add it to a table in {__name__}")

    def continued(self, number: int) -> Iterator[str]:
        """Yield the shadow modules that a part, or one before it, continues."""
        for name in self.shadows:
            early = (n for n, part in enumerate(self.parts) if name in part.overrides)
            if min([self.part_of(name), *early]) <= number:
                yield name

    # Tests

    @cached_property
    def tests(self) -> dict[str, int]:
        """The part of each file below ``tests/``: the last one of what it uses."""
        folder = self.overlay / "tests"
        files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*.py"))}
        kept = {name: p for name, p in files.items() if not NOT_UPSTREAM.fullmatch(name)}
        found = {name: self._uses(path.read_text()) for name, path in kept.items()}
        parts = {name: max(part, self._part_of_mirrored(name)) for name, (part, _) in found.items()}
        for number, of_part in enumerate(self.parts):
            late = [name for name in parts if re.fullmatch(of_part.tests, name)]
            parts.update({name: max(parts[name], number) for name in late})
        for _ in range(5):  # helpers of helpers
            for name, (_, helpers) in found.items():
                parts[name] = max([parts[name], *(parts[h] for h in helpers if h in parts)])
        for name in parts:  # a folder comes with its first test
            if name.endswith("__init__.py"):
                below = name.removesuffix("__init__.py")
                others = (n for n in parts if n.startswith(below) and not n.endswith("__init__.py"))
                parts[name] = min((parts[n] for n in others), default=0)
        return parts

    def _part_of_mirrored(self, name: str) -> int:
        """Return the part of the package of ours that the folder of a test mirrors, if there is one."""
        package = str(Path(name).with_name("__init__.py"))
        return self.part_of(package) if package in self.new else 0

    def _uses(self, text: str) -> tuple[int, list[str]]:
        """Return the last part of whose modules and names a test uses some, and the helpers that it imports."""
        part, helpers = 0, []
        for node in ast.walk(ast.parse(text)):
            names = (
                [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = [node.attr] if node.value.id == "pm" else []
            for name in map(str, names):
                if name.startswith("tests."):
                    helpers.append(name.removeprefix("tests.").replace(".", "/") + ".py")
                part = max(part, self._part_of_name.get(name.removeprefix("pymc."), 0))
        return part, helpers

    @cached_property
    def _part_of_name(self) -> dict[str, int]:
        """The part of each module of ours, of each name that the root has, and of each override."""
        found: dict[str, int] = {}
        for name in [*self.new, *self.shadows]:
            module = ".".join(Path(name).with_suffix("").parts).removesuffix(".__init__")
            tree = ast.parse(self.files[name])
            if name in self.shadows:
                for defined in [*definitions(tree.body), *_after_run(tree)]:
                    found[defined] = self.part_of(name, defined)
            else:
                found[module] = self.part_of(name)
        root = ast.parse(self.files["__init__.py"])
        for node in ast.walk(root):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values):
                    module = ast.literal_eval(key).removeprefix("pymc.")  # type: ignore[arg-type]
                    found.update(dict.fromkeys(ast.literal_eval(value), found.get(module, 0)))
        for name, statement in imports(root.body).items():
            module = str(getattr(statement, "module", "")).removeprefix("pymc.")
            found.setdefault(name, found.get(module, 0))
        return found


def has_content(text: str) -> bool:
    """Return whether a shadow module changes something, and does not only run the release's."""
    return len(ast.parse(text).body) > 2


def _after_run(tree: ast.Module) -> list[str]:
    """Return the names that a shadow module imports in place of definitions."""
    first = next(n.lineno for n in tree.body if "_layer.run_release(" in ast.unparse(n))
    return [name for name, node in imports(tree.body).items() if node.lineno > first]
