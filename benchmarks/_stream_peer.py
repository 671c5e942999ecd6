# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What a process of bench_stream.py does: it reads rows or takes steps, and says how long that took.

This runs in the environments of all peers, torch's maybe of Python 3.11, so it imports little.
"""

import importlib
import re
import time

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from _common import send, serve

Settings = dict[str, Any]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def be_peer(settings: Settings) -> None:
    """Do what ``settings["kind"]`` says."""
    module = importlib.import_module(f"peers.stream_{settings['peer']}")  # of what only it has
    kinds = {"read": serve_reads, "fit": serve_steps, "warm": warm_up, "memory": send_memory}
    kinds[settings["kind"]](module, settings)


def serve_reads(module: Any, settings: Settings) -> None:
    """Answer with the microseconds in which ``settings["batch_size"]`` rows are read."""
    passes = module.start(settings)
    read(passes, settings["n_rows"] // 10)  # what is compiled is compiled now
    send({})

    def answer() -> dict[str, float]:
        begun = time.perf_counter()
        n_rows = read(passes, settings["n_rows"])
        return {"time": (time.perf_counter() - begun) / n_rows * settings["batch_size"] * 1e6}

    serve(answer)


def read(passes: Callable[[], Iterable[Any]], n_rows: int) -> int:
    """Read `n_rows` rows or a few more; return how many it were.

    Raises
    ------
    RuntimeError
        If there are fewer, but for a batch that was dropped: such a pass would seem fast.
    """
    n_read = 0
    for batch in passes():
        n_read += len(batch)
        size = len(batch)
        if n_read >= n_rows:
            break
    if n_read <= n_rows - size:
        raise RuntimeError(f"{n_rows} rows asked for, {n_read} read")
    return n_read


def serve_steps(module: Any, settings: Settings) -> None:
    """Answer with the microseconds of a step."""
    from peers import seconds  # of the patch's environment only

    fit, n_steps = module.start(settings), settings["n_steps"]
    send({})
    serve(lambda: {"time": seconds(fit, n_steps) / n_steps * 1e6})


def warm_up(module: Any, settings: Settings) -> None:
    """Compile all that :func:`send_memory` needs, so that it is in the cache."""
    module.prepare(settings)
    module.start(settings)
    send({})


def send_memory(module: Any, settings: Settings) -> None:
    """Say how far the memory of this process goes above that before it reads, in MB."""
    run = module.prepare(settings)
    before = resident("VmRSS")
    CLEAR.write_text("5")  # the peak begins anew
    begun = time.perf_counter()
    run()
    send({"seconds": time.perf_counter() - begun, "before": before, "peak": resident("VmHWM")})


def resident(name: str) -> float:
    """Return the resident memory now (``"VmRSS"``) or its peak (``"VmHWM"``), in MB; Linux only."""
    found = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())
    if found is None:
        raise RuntimeError(f"{STATUS} does not have {name}")
    return int(found.group(1)) * 1024 / 1e6
