# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: plain PyMC beside the patch, times under noise, tables.

Two processes, the release and the patch, do the same work in turns, so that what else the machine
does hits both. A figure is the median over the rounds, a ratio the median of the ratios of rounds.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import warnings

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "benchmarks"
RELEASE, PATCH = "release", "patch"

# One thread each: threads of one process would run on the core that the other's time is taken on.
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")} | {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
}


class Peer:
    """A process that runs a benchmark's `serve` under the release, the patch or another library.

    Parameters
    ----------
    script : str
        The benchmark, started as ``python script --peer SETTINGS``.
    python : path
        :func:`plain_python`'s for the release, ``sys.executable`` for the patch, that of its own
        environment for another library.
    settings : dict
        What the process is to do, as JSON.
    cache : path
        Folder for compiled code: empty for a cold start.
    environment : mapping of str to str, optional
        Further environment variables.
    """

    def __init__(
        self,
        script: str,
        python: Path | str,
        settings: Mapping[str, Any],
        cache: Path = CACHE,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTENSOR"))}
        flags = f"floatX={settings['dtype']},base_compiledir={cache}"
        compiled = {"PYTENSOR_FLAGS": flags, "NUMBA_CACHE_DIR": str(cache / "numba_cache")}
        variables = clean | ONE_THREAD | compiled | dict(environment or {})
        self.settings = settings
        self.patched = str(python) == sys.executable
        if self.patched:
            # this checkout's, should the patch be installed from another one
            variables["PYTHONPATH"] = os.pathsep.join([str(ROOT / "overlay"), str(ROOT)])
        self.process = subprocess.Popen(
            [str(python), script, "--peer", json.dumps({**settings, "patched": self.patched})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env=variables,
            text=True,
        )
        self.hello = self.receive()

    def receive(self) -> dict[str, Any]:
        """Wait for the next answer."""
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError(f"a peer died, see above; its settings: {self.settings}")
        return json.loads(line)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request, and wait for its answer."""
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self.receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # the end of its input is the end of its work


def send(answer: Mapping[str, Any]) -> None:
    """Answer, from within a peer."""
    print(json.dumps(answer), flush=True)


def serve(answer: Callable[..., Mapping[str, Any]]) -> None:
    """Answer requests until there are no more, from within a peer."""
    for line in sys.stdin:
        send(answer(**json.loads(line)))


def take_turns(peers: Mapping[str, Peer], rounds: int, **request: Any) -> dict[str, list[float]]:
    """Ask each peer for its ``"time"`` in turns, in the other order in every second round."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    for k in range(rounds):
        for name in list(peers)[:: -1 if k % 2 else 1]:
            times[name].append(peers[name].ask(**request)["time"])
    return times


def peak_memory() -> float:
    """Peak resident size of this process in MB."""
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Get how many times faster, as the median over the rounds."""
    return median(s / f for s, f in zip(slow, fast, strict=True))


def plain_python(folder: Path) -> Path:
    """Return a Python with the packages of this one and without the patch, made in `folder`."""
    sys.path.insert(0, str(ROOT))
    from tests.conformance import make_plain_environment  # a parent's only: it imports pytest

    return make_plain_environment(folder)


def machine(*packages: str) -> str:
    """Name the processor, its cores, and the versions that matter."""
    info = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    for line in info.read_text().splitlines() if info.exists() else ():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "flags" in fields:
        vectors = "AVX-512" if "avx512dq" in fields["flags"] else "no AVX-512"
        name += f" (family {fields.get('cpu family', '?')}, {vectors})"
    versions = ", ".join(
        f"{package} {version(package)}" for package in ("pymc", "pytensor", "numpy", *packages)
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system, python = platform.system(), platform.python_version()
    return f"{cores} cores of {name}; {system}, Python {python}, {versions}"


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table, whose first column is text and the others are figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(
    description: str | None,
    benchmark: Callable[[argparse.Namespace], str],
    peer: Callable[[dict[str, Any]], None] | None = None,
    **options: int | bool | str | tuple[str, ...],
) -> None:
    """Run a benchmark from the command line: print its text, or be one of its peers.

    Parameters
    ----------
    description : str
        The benchmark's docstring.
    benchmark : callable
        Takes the options, returns the text.
    peer : callable, optional
        Takes the settings of a :class:`Peer`.
    **options : int, bool, str or tuple of str
        Options of the command line and their defaults; a bool is a flag, a tuple takes several values.
    """
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--peer", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help="also write the text to this file")
    for name, default in options.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(flag, action="store_true")
            continue
        values = (
            {"nargs": "*", "type": str} if isinstance(default, tuple) else {"type": type(default)}
        )
        shown = " ".join(default) if isinstance(default, tuple) else default
        parser.add_argument(flag, default=default, help=f"default: {shown}", **values)
    arguments = parser.parse_args()
    if arguments.peer is not None and peer is not None:
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        peer(arguments.peer)
        return
    text = benchmark(arguments)
    print(text)
    if arguments.write:
        arguments.write.write_text(text + "\n", encoding="utf-8")
