#!/bin/sh
# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

# Makes the clone's own environment, .venv, and installs one group of pyproject.toml into it:
#
#     scripts/environment.sh test
#
# uv does the work: the one on PATH, or one from PyPI in .tools, beside which nothing outside the
# clone is touched. Python 3.12 to 3.14 comes from $PYTHON, from what uv finds (on PATH, its own), from
# pyenv, or else from uv's download into .tools. A .venv that is there stays, unless $PYTHON is set and
# is another Python.
set -eu
# Lists of paths are split at the ends of lines only: there may be spaces in $HOME
IFS='
'

root=$(cd "$(dirname "$0")/.." && pwd)
group=$1
wanted='>=3.12,<3.15'

say() { echo "environment: $*" >&2; }

# Whether $1 is a Python that the project runs on. From /, for .python-version binds pyenv's shims.
suits() {
    (cd / && "$1" -c 'import sys; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 15))') \
        >/dev/null 2>&1
}

# Whether .venv holds the Python that $PYTHON asks for, or any where that is not set.
is_wanted() {
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$root/.venv/bin/python")" ]
}

version_of() {
    (cd / && "$1" -c 'import sys; print(sys.version)') 2>/dev/null || echo "$1 does not run"
}

pyenv_pythons() {
    for minor in 13 14 12; do
        ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.$minor.*/bin/python 2>/dev/null || true
    done
}

find_uv() {
    if command -v uv >/dev/null 2>&1; then
        command -v uv
        return
    fi
    if ! [ -x "$root/.tools/bin/uv" ]; then
        for python in python3 python3.13 python3.14 python3.12 /usr/bin/python3 $(pyenv_pythons); do
            if (cd / && "$python" -m venv --clear "$root/.tools" &&
                "$root/.tools/bin/python" -m pip install --quiet uv) >/dev/null 2>&1; then
                break
            fi
        done
    fi
    if ! [ -x "$root/.tools/bin/uv" ]; then
        say "uv is not on PATH, and no Python here could install it from PyPI into $root/.tools."
        say "Install uv, or a python3 with its venv module (on Debian: python3-venv), and try again."
        return 1
    fi
    echo "$root/.tools/bin/uv"
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        if ! suits "$PYTHON"; then
            say "PYTHON=$PYTHON is no working Python $wanted."
            return 1
        fi
        echo "$PYTHON"
        return
    fi
    for request in 3.13 "$wanted"; do
        if python=$(cd / && UV_PYTHON_DOWNLOADS=never "$uv" python find --system "$request" 2>/dev/null) &&
            suits "$python"; then
            echo "$python"
            return
        fi
    done
    for python in $(pyenv_pythons); do
        if suits "$python"; then
            echo "$python"
            return
        fi
    done
    say "no Python $wanted found through uv, pyenv or PATH; asking uv to download one ..."
    export UV_PYTHON_INSTALL_DIR="$root/.tools/python"
    if (cd / && "$uv" python install --no-bin 3.13) >/dev/null 2>&1 &&
        python=$(cd / && "$uv" python find --managed-python 3.13 2>/dev/null) && suits "$python"; then
        echo "$python"
        return
    fi
    say "this project needs Python 3.12, 3.13 or 3.14, and there is none here: uv, pyenv"
    say "(${PYENV_ROOT:-$HOME/.pyenv}) and PATH have been searched, and the download failed."
    say "Install one (uv python install 3.13; pyenv install 3.13), or name one that lies elsewhere:"
    say "    make $group PYTHON=/path/to/python3.13"
    return 1
}

uv=$(find_uv)
if ! suits "$root/.venv/bin/python" || ! is_wanted; then
    python=$(find_python)
    "$uv" venv --quiet --clear --no-project --python "$python" "$root/.venv"
    say "$("$root/.venv/bin/python" --version) of $python in .venv"
fi
say "installing pymc-minibatch and its group '$group' ..."
cd "$root"
# Without byte code each process would compile 10,000 files anew where PYTHONDONTWRITEBYTECODE is set
"$uv" pip install --quiet --compile-bytecode --python .venv/bin/python --editable . --group "$group"
: > ".venv/.$group"
