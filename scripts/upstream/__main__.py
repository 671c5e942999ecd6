# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Write the patch as commits on PyMC's tree: ``make upstream``.

Without arguments, build/upstream/ becomes a git repository with the supported release, tagged, and the series
of commits, beside it in build/patches/ what ``git am`` takes, and a cover letter. With another release, or a
checkout, say what would have to change.
"""

import argparse
import shutil
import sys

from collections import Counter
from pathlib import Path

from scripts.upstream.letter import cover_letter
from scripts.upstream.other import compare
from scripts.upstream.series import EXTRAS, Series
from scripts.upstream.tree import Tree, leftovers
from tests.conformance import ROOT, fetch_release

BUILD = ROOT / "build"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--release", help="another release of PyMC, such as 6.5.0")
    parser.add_argument("--checkout", type=Path, help="the folder of a checkout of PyMC")
    options = parser.parse_args()
    series = Series(ROOT)
    if options.release or options.checkout:
        other = options.checkout or fetch_release(options.release)
        found = compare(series, fetch_release(), other.resolve(), BUILD / "other")
        print(
            "\n".join(found)
            or "The overlay merges as it is: nothing that it overrides has changed."
        )
        return bool(found)
    release = fetch_release()
    tag = f"v{release.name.removeprefix('pymc-')}"
    tree = Tree.copy_of(release, BUILD / "upstream", series)
    wrong: list[str] = []
    tree.commit_series(tag, lambda tree, number: wrong.extend(check(tree, number)))
    write_patches(tree, tag)
    report(tree, tag)
    print("\n".join(wrong) or f"each commit imports, and is clean by PyMC's ruff: {tree.folder}")
    return bool(wrong)


def check(tree: Tree, number: int) -> list[str]:
    """Return what is wrong with a commit: overrides that are left out, lint, and imports."""
    title = tree.series.parts[number].title
    done = tree.run("import pymc; print(pymc.__file__)")
    print(f"{number + 1} {title}: {tree.git('diff', '--shortstat', 'HEAD~').strip()}", flush=True)
    found = [*tree.refused, *leftovers(tree.folder), *tree.findings()]
    if done.returncode or str(tree.folder) not in done.stdout:
        found.append(f"import pymc: {done.stderr or done.stdout}")
    return [f"{title}: {line}" for line in found]


def write_patches(tree: Tree, tag: str) -> None:
    """Write what ``git am`` takes: those for PyMC, and those for pymc-extras on top of them."""
    head = f"HEAD~{len(EXTRAS)}"
    for name, commits in (("pymc", f"{tag}..{head}"), ("extras", f"{head}..HEAD")):
        folder = BUILD / "patches" / name
        if folder.exists():
            shutil.rmtree(folder)
        tree.git("format-patch", "--quiet", "--output-directory", str(folder), commits)
    tree.git("branch", "--force", "extras")
    stat = tree.git("diff", "--shortstat", tag, head).strip()
    letter = cover_letter(ROOT, f"PyMC {tag.removeprefix('v')}", stat)
    (BUILD / "patches" / "pymc" / "0000-cover-letter.md").write_text(letter)


def report(tree: Tree, tag: str) -> None:
    for kind, (files, added, removed) in tree.lines(tag).items():
        print(f"{kind}: {files} files, +{added} -{removed} lines")
    forms = Counter(form for _, form, _ in tree.forms)
    print("overrides:", ", ".join(f"{n} {form}" for form, n in forms.most_common()))


if __name__ == "__main__":
    sys.exit(main())
