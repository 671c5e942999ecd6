# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Fits in the kernel of a notebook, where IPython and a kernel are installed."""

from __future__ import annotations

import pytest

CELLS = {
    "fit": """
import sys
{widgets}
import numpy as np, pymc as pm, pytensor
pytensor.config.mode = "FAST_COMPILE"
with pm.Model() as model:
    pm.Normal("y", pm.Normal("mu"), 1, observed=np.ones(5))
    approx = pm.fit(300, random_seed=1, progressbar="plot")
""",
    "show": "approx",
    "auto": "auto = pm.fit(method='auto', model=model, random_seed=1)",
    "widgets": "print(sys.modules.get('ipywidgets') is None)",
}


@pytest.mark.parametrize("has_widgets", [True, False])
def test_a_fit(has_widgets):
    """One bar for a fit, as HTML; nothing that went well on standard error; the verdict first."""
    nbformat, nbclient = map(pytest.importorskip, ("nbformat", "nbclient"))
    pytest.importorskip("ipykernel")
    if has_widgets:
        pytest.importorskip("ipywidgets")
    widgets = "" if has_widgets else "sys.modules['ipywidgets'] = None"
    cells = [nbformat.v4.new_code_cell(c.replace("{widgets}", widgets)) for c in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=300).execute()
    fit, show, auto, last = (cell.outputs for cell in notebook.cells)
    bar, finished = (output.data["text/html"] for output in fit if "data" in output)
    assert "300 of 300 steps" in bar
    assert "<svg" in bar
    assert "Finished" in finished
    assert [
        output.text
        for output in fit
        if output.get("name") == "stderr" and "Finished" in output.text
    ] == []
    [card] = (output.data["text/html"] for output in show)
    assert card.index("converged") < card.index("MeanField")
    [line] = (output.data["text/html"] for output in auto if "data" in output)
    assert "trusted" in line
    assert last[0].text == "True\n"  # no widget was needed
