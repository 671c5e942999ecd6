#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""The Pythons that the peers run in."""

import subprocess
import sys
import venv

from importlib.metadata import version
from pathlib import Path

from _common import CACHE

NUMPYRO = "numpyro==0.22.*"


def numpyro_python() -> Path | None:
    """Return a Python with NumPyro and the JAX of this environment, installed once.

    NumPyro is no dependency of the project, not even of its tests. None, and a printed sentence, where
    it cannot be installed.
    """
    folder = CACHE / f"numpyro-{sys.version_info.major}.{sys.version_info.minor}"
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    done = folder / "done"
    wanted = f"{NUMPYRO} jax=={version('jax')}"
    if done.exists() and done.read_text() == wanted:
        return python
    venv.create(folder, clear=True, symlinks=sys.platform != "win32")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    try:
        subprocess.run([*pip, *wanted.split()], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().rpartition("\n")[2]
        print(f"NumPyro is left out: {wanted} cannot be installed ({reason})", file=sys.stderr)
        return None
    done.write_text(wanted)
    return python


def package_version(python: Path, package: str) -> str:
    """Return the version of a package in another environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    command = [str(python), "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
