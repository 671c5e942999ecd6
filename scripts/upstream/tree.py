# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""PyMC's tree with the overlay merged into it: files, commits and patches."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from scripts.upstream.modules import Shadow
from scripts.upstream.series import BY_HAND, Series
from scripts.upstream.source import FUNCTION, Source, bound

#: Fixes of ruff that put a merged file in order: imports and what nothing uses, then comments for it.
FIXES = ("I,F401,F811", "RUF100")

#: Comments for a type checker, to which the release's names are unknown.
OF_RELEASE = re.compile(
    r"  # type: ignore\[attr-defined\]  # (of the release|the release's)$", re.M
)

_IDENTITY = {"NAME": "pymc-minibatch", "EMAIL": "pymc-minibatch@localhost"}


@dataclass
class Tree:
    """A tree of PyMC, and the part of the overlay that is merged into it.

    Parameters
    ----------
    folder : Path
        With ``pymc/`` and ``pyproject.toml``. Its files are changed.
    release : Path
        The same tree, unchanged.
    series : Series
    forms : list of (str, str, str)
        Of the last merge: file, form and name of each override.
    refused : list of str
        Of the last merge: what has no form that can be merged, and why.
    """

    folder: Path
    release: Path
    series: Series
    forms: list[tuple[str, str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _names: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def copy_of(cls, release: Path, folder: Path, series: Series) -> "Tree":
        """Copy a release's tree; the Python files and settings of it."""
        if folder.exists():
            shutil.rmtree(folder)
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".git", "PKG-INFO")
        shutil.copytree(release, folder, ignore=ignored)
        return cls(folder, release, series)

    # Merging

    def merge(self, number: int | None = None, skip: Container[str] = ()) -> None:
        """Merge the overlay up to a part of the series, by default all of it; without the files to skip."""
        last = len(self.series.parts) - 1 if number is None else number
        self.forms, self.refused = [], []
        changed = [
            self._write_new(name) for name in self.series.new if self.series.part_of(name) <= last
        ]
        for name in self.series.continued(last):
            if name in skip:
                continue
            target = self.folder / "pymc" / name
            target.write_text(self._merged(name, last))
            changed.append(target)
        changed += self._write_tests(last)
        self.put_in_order(changed)
        self._remove_unused()
        self.put_in_order(changed)

    def _write_new(self, name: str) -> Path:
        text = re.sub(r"^# Copyright.*\n# SPDX.*\n", self.licence, self.series.files[name])
        text = OF_RELEASE.sub("", text)
        target = self.folder / "pymc" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def _write_tests(self, last: int) -> list[Path]:
        written = []
        for name, part in self.series.tests.items():
            if part <= last:
                text = (self.series.overlay / "tests" / name).read_text()
                target = self.folder / "tests" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(re.sub(r"^# Copyright.*\n# SPDX.*\n", self.licence, text))
                written.append(target)
        return written

    @cached_property
    def licence(self) -> str:
        """The header that PyMC's files have."""
        lines = self.release.joinpath("pymc", "data.py").read_text().splitlines(keepends=True)
        header = next(k for k, line in enumerate(lines) if not line.startswith("#"))
        return re.sub(r"\d{4}", "2026", "".join(lines[:header]), count=1)

    def _merged(self, name: str, last: int) -> str:
        shadow = Shadow(
            name,
            Source(self.series.files[name]),
            Source(self.release.joinpath("pymc", name).read_text()),
            has=self.has,
            methods=self._methods,
            takes=lambda override: self.series.part_of(name, override) <= last,
            by_hand=BY_HAND.get(name, {}),
        )
        text = shadow.merge()
        self.forms += [(name, form, override) for form, override in shadow.forms]
        self.refused += shadow.refused
        return text

    @cached_property
    def _methods(self) -> dict[str, set[str]]:
        """The methods of each class in new modules, by its name."""
        trees = [ast.parse(self.series.files[name]) for name in self.series.new]
        classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
        return {c.name: {m.name for m in c.body if isinstance(m, FUNCTION)} for c in classes}

    def has(self, module: str, name: str | None) -> bool:
        """Return whether the tree has a module, or a name in it."""
        path = self.folder.joinpath(*module.split("."))
        file = path.with_suffix(".py")
        file = file if file.is_file() else path / "__init__.py"
        if name is None or not file.is_file():
            return file.is_file()
        if (path / f"{name}.py").is_file() or (path / name / "__init__.py").is_file():
            return True
        return name in self._names_in(file.relative_to(self.folder / "pymc").as_posix())

    def _names_in(self, name: str) -> set[str]:
        """Return the names that a file binds: the release's, ours, and those that it loads late."""
        if name not in self._names:
            texts = [self.series.files.get(name, "")]
            if (released := self.release / "pymc" / name).is_file():
                texts.append(released.read_text())
            found = set().union(*(bound(ast.parse(text).body) for text in texts))
            late = re.findall(r'"(\w+)"', texts[0]) if "load_late(" in texts[0] else []
            self._names[name] = found.union(late)
        return self._names[name]

    def put_in_order(self, files: Iterable[Path]) -> None:
        """Sort imports, drop those that nothing uses, and format, by the settings of the tree."""
        names = [str(file.relative_to(self.folder)) for file in files]
        self.ruff(
            "check", "--quiet", "--fix-only", "--unfixable", "ALL", *names
        ) if not names else None
        for fixed in FIXES:
            self.ruff("check", "--quiet", "--fix-only", "--fixable", fixed, *names)
        self.ruff("format", "--quiet", *names)

    def _remove_unused(self) -> None:
        """Remove private functions and methods of the release that nothing uses any more."""
        words = _words(self.folder / "pymc")
        before = _words(self.release / "pymc")
        for name in {file for file, _, _ in self.forms}:
            target = self.folder / "pymc" / name
            source = Source(target.read_text())
            old = Source(self.release.joinpath("pymc", name).read_text())
            known = {n.name for n in ast.walk(old.tree) if isinstance(n, FUNCTION)}
            unused = [
                node
                for node in ast.walk(source.tree)
                if isinstance(node, FUNCTION)
                and node.name in known
                and node.name.startswith("_")
                and words[node.name] == 1 < before[node.name]
            ]
            text = source.text
            for node in sorted(unused, key=lambda n: -n.lineno):
                start, end = source.block(node)
                text = text[:start] + text[end:]
                self.forms.append((name, "unused", node.name))
            target.write_text(text)

    # Checks

    def ruff(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "ruff", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True).stdout

    def findings(self) -> list[str]:
        """Return what ruff finds by PyMC's settings, and did not find in the release."""
        found = _findings(self.ruff("check", "--output-format", "json", "pymc", "tests"))
        known = Tree(self.release, self.release, self.series).ruff(
            "check", "--output-format", "json"
        )
        return sorted((found - _findings(known)).elements())

    def run(self, code: str, **variables: str) -> subprocess.CompletedProcess:
        """Run Python code with this tree as its PyMC; the overlay's finder is not started."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.run(
            [sys.executable, "-S", "-c", code],
            cwd=self.folder,
            env={**kept, **self.environment, **variables},
            capture_output=True,
            text=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which ``python -S`` finds this tree, and the packages of this Python."""
        paths = [str(self.folder), *(path for path in sys.path if path.endswith("-packages"))]
        return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}

    # Commits

    def git(self, *arguments: str) -> str:
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
        for who in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{who}_{key}": value for key, value in _IDENTITY.items()}
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"git {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def commit_series(self, tag: str, check: Callable[["Tree", int], None]) -> None:
        """Make a repository of the release, with its tag, and a commit for each part.

        `check` is called after each commit, with its number.
        """
        self.git("init", "--quiet", "--initial-branch=minibatch")
        self.folder.joinpath(".git", "info", "exclude").write_text("__pycache__/\n.ruff_cache/\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"PyMC {tag.removeprefix('v')}")
        self.git("tag", tag)
        for number, part in enumerate(self.series.parts):
            self.merge(number)
            self.git("add", "--all")
            self.git("commit", "--quiet", "--message", f"{part.title}\n\n{part.why}")
            check(self, number)

    def lines(self, tag: str) -> dict[str, tuple[int, int, int]]:
        """Return the number of files, and of lines added and removed, in PyMC's files, new ones and tests."""
        found = dict.fromkeys(("PyMC's files", "new files", "tests"), (0, 0, 0))
        kinds = self.git("diff", "--name-status", "--no-renames", tag)
        status = {name: kind for kind, name in (line.split("\t") for line in kinds.splitlines())}
        for line in self.git("diff", "--numstat", "--no-renames", tag).splitlines():
            added, removed, name = line.split("\t")
            kind = "tests" if name.startswith("tests/") else "new files"
            if status[name] == "M":
                kind = "PyMC's files"
            n, plus, minus = found[kind]
            found[kind] = n + 1, plus + int(added), minus + int(removed)
        return found


def _words(folder: Path) -> Counter[str]:
    text = " ".join(file.read_text() for file in folder.rglob("*.py"))
    return Counter(re.findall(r"\w+", text))


def _findings(report: str) -> Counter[str]:
    """Return findings of ruff without their lines, which move."""
    folders = re.compile(r"^.*?/(pymc|tests)/")
    return Counter(
        f"{folders.sub(lambda m: f'{m[1]}/', f['filename'])}: {f['code']} {f['message']}"
        for f in json.loads(report or "[]")
    )


def leftovers(folder: Path) -> list[str]:
    """Return the lines of a tree that only the overlay needs."""
    pattern = re.compile(r"\breleased\.|\b_layer\b|extends_docstring")
    return [
        f"{file.relative_to(folder)}: {line.strip()}"
        for file in sorted(folder.joinpath("pymc").rglob("*.py"))
        for line in file.read_text().splitlines()
        if pattern.search(line)
    ]
