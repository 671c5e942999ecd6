# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Workers of a real Ray on this machine: results, lost workers, and errors."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import pymc as pm

from pymc.variational.cluster import pool as pool_module
from pymc.variational.cluster.pool import Pool, WorkersLostError, open_pool
from pymc.variational.cluster.ray_session import ray_session
from tests.variational.cluster.programs import Fails, Once, Square, Squares

# Not by importorskip: Ray reads its environment when it is imported
if find_spec("ray") is None:
    pytest.skip("needs Ray", allow_module_level=True)

FACTS = {"rows": 20, "kind": "numbers"}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """Two workers, as long as no test of this file has its own Ray."""
    handler = signal.getsignal(signal.SIGTERM)
    # Room for the two and for those of tests, also while a lost one has not left its core yet
    with (
        ray_session(pm.Workers(8)),
        open_pool(pm.Workers(2, timeout=3), Squares(1, FACTS)) as pool,
    ):
        while not all(place.about for place in pool._places):
            list(pool._wait(lambda: None))
        assert signal.getsignal(signal.SIGTERM) is handler
        yield pool


def right(items: range) -> list[int]:
    return [1 + i**2 for i in items]


def test_results_are_in_the_order_of_the_items(pool: Pool) -> None:
    found = pool.map(Square(0.01), range(20))
    assert [value for value, _ in found] == right(range(20))
    # The first half is that of the first worker, and so is the second of the second, but for what is taken over
    assert len({pid for _, pid in found}) == 2
    assert pool.settings["workers"] == 2 and not pool.lost


def test_an_error_of_a_task(pool: Pool) -> None:
    with pytest.raises(FloatingPointError, match="is not finite") as info:
        pool.map(Fails(), range(4))
    assert info.value.__notes__[0].startswith("Raised by a worker on node")
    assert [v for v, _ in pool.map(Square(), range(3))] == right(range(3))


def test_a_check_that_stops(pool: Pool) -> None:
    def check() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.map(Square(0.2), range(4), check)
    assert [v for v, _ in pool.map(Square(), range(3))] == right(range(3))


@pytest.mark.parametrize(
    "kind, reason",
    [(signal.SIGKILL, ""), (signal.SIGSTOP, "gave no answer for 3 s")],
    ids=["killed", "stopped"],
)
def test_a_lost_worker(pool: Pool, tmp_path: Path, kind: signal.Signals, reason: str) -> None:
    """Its items are computed by others, and another process takes its place."""
    n_lost = len(pool.lost)
    found = pool.map(Once(tmp_path, 13, kind), range(20))
    assert [value for value, _ in found] == right(range(20))
    [lost] = pool.lost[n_lost:]
    assert reason in lost.reason and str(lost.pid) in pool.settings["lost_workers"]
    end = time.monotonic() + 60
    while not all(place.about for place in pool._places):
        assert time.monotonic() < end
        list(pool._wait(lambda: None))
    pids = {place.where[1] for place in pool._places}
    assert lost.pid not in pids and len(pids) == 2 and os.getpid() not in pids


def test_workers_that_are_lost_each_time(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MOST_LOSSES", 1)
    with pytest.raises(WorkersLostError, match="were lost one after the other"):
        pool.map(Fails(exits=True), range(4))


@pytest.mark.parametrize(
    "wrong, error, message",
    [
        ("module", ModuleNotFoundError, "No module named 'only_on_the_driver'\nRaised by a worker"),
        ("file", FileNotFoundError, "rows.parquet"),
    ],
)
def test_a_program_that_is_not_built(
    pool: Pool, wrong: str, error: type[Exception], message: str
) -> None:
    """One error, and not a worker that is started again for ever."""
    with pytest.raises(error, match=re.escape(message)):
        with open_pool(pm.Workers(1), Squares(1, FACTS, wrong)):
            pass


def test_other_versions(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = pool_module.package_versions() | {"numba": "0.1"}
    monkeypatch.setattr(pool_module, "package_versions", lambda: versions)
    with pytest.raises(RuntimeError, match=r"numba 0.68.* and 0\.1 here"):
        with open_pool(pm.Workers(1), Squares(1, FACTS)):
            pass


def listening() -> set[str]:
    """Return the addresses of this machine that are listened on, but loopback, in hexadecimal."""
    lines = [
        line.split()
        for file in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(file).read_text().splitlines()[1:]
    ]
    ends = [local for _, local, _, state, *_ in lines if state == "0A"]
    return {end for end in ends if not end.split(":")[0].endswith("0100007F")}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
def test_nobody_else_can_reach_it(tmp_path: Path) -> None:
    """Ray listens on the loopback address, asks for a token, and writes nothing into the home folder."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, pymc as pm\n"
        "from pymc.variational.cluster.pool import open_pool\n"
        "from tests.variational.cluster.programs import Square, Squares\n"
        "from tests.variational.cluster.test_pool import listening\n"
        "before = listening()\n"
        "with open_pool(pm.Workers(1), Squares(1, {})) as pool:\n"
        "    assert pool.map(Square(), [3])[0][0] == 10\n"
        "    import os; assert os.environ['RAY_AUTH_MODE'] == 'token'\n"
        "    assert listening() == before\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    subprocess.run([sys.executable, script], check=True, env={**clean, "HOME": str(home)})
    assert not list(home.iterdir())
