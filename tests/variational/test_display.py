# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""HTML of results for notebooks, and charts: the verdict first, all text escaped, nothing from elsewhere."""

from __future__ import annotations

import re

from html.parser import HTMLParser

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.variational.display import Status, bar, block_means, card, chart, text_chart
from pymc.variational.report import FitReport, Verdict

EVIL = "<script>alert('x')</script>&\""
REPORT = FitReport("ADVI", "numba", "numba", 300, 0.5, 2.0, "finished", {"optimizer": EVIL})


class Reader(HTMLParser):
    """Collects text and tags, and checks that each tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        self.texts.append(data)


def read(value) -> Reader:
    return Reader(value._repr_html_())


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(1)
    with pytensor.config.change_flags(mode="FAST_COMPILE"), pm.Model() as model:
        pm.Normal("y", pm.Normal("<mu>"), 1, observed=rng.normal(size=20))
        return model, pm.fit(200, progressbar=False, random_seed=1)


def all_displays(fitted):
    model, approx = fitted
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        diagnosis = pm.variational.diagnose(approx, 100, random_seed=1, progressbar=False)
        auto = pm.fit(method="auto", model=model, random_seed=1, progressbar=False)
        loader = pm.DataLoader(np.zeros((6, 1)), batch_size=3)
        with pm.Model() as streamed:
            batch = pm.Data("batch", loader, dims=("obs", "column"))
            pm.Normal("y", pm.Normal("mu"), 1, observed=batch[:, 0], dims="obs")
        trainer = pm.Trainer(dataloader=loader, model=streamed, progressbar=False, random_seed=1)
        trainer.fit(200)
    return [
        *((value, approx.report.verdict.status) for value in (approx, approx.report)),
        (approx.report.verdict, approx.report.verdict.status),
        (auto, auto.report.verdict.status),
        (diagnosis, Status(diagnosis.verdict, None)),
        (trainer, trainer.approx.report.verdict.status),
    ]


def test_the_verdict_is_first(fitted):
    for value, status in all_displays(fitted):
        texts = [text for text in read(value).texts if text.strip()]
        assert texts[0] == status.word, texts
        assert not status.text or status.text in texts


def test_before_a_fit(fitted):
    model, _ = fitted
    with model:
        assert read(pm.ADVI().approx).texts[0] == "not fitted"
    loader = pm.DataLoader(np.zeros((6, 1)), batch_size=3)
    with pm.Model():
        batch = pm.Data("batch", loader, dims=("obs", "column"))
        pm.Normal("y", pm.Normal("mu"), 1, observed=batch[:, 0], dims="obs")
        trainer = pm.Trainer(dataloader=loader)
        assert read(trainer).texts[0] == "not fitted"
        assert "0 batches; at row 0 of pass 1" in read(trainer).texts
        with pytensor.config.change_flags(mode="FAST_COMPILE"):
            trainer.prepare()
        assert read(trainer).texts[0] == "not fitted"


def test_a_short_fit_has_no_verdict():
    assert read(REPORT).texts[0] == "no verdict"


def test_text_is_escaped(fitted):
    _, approx = fitted
    assert "<mu>" in "".join(read(approx).texts)
    assert "script" not in read(REPORT).tags
    assert EVIL in read(REPORT).texts
    for html in (
        card(EVIL, Status(EVIL, True, EVIL), {EVIL: EVIL}, {EVIL: EVIL}),
        bar(0.5, EVIL),
        chart(np.arange(2), np.arange(2), EVIL, EVIL),
    ):
        assert "script" not in Reader(html).tags


def test_nothing_is_loaded(fitted):
    _, approx = fitted
    reader = read(approx)
    assert reader.tags.isdisjoint({"script", "link", "img", "iframe", "style"})
    assert not {name for name, _ in reader.attributes} & {"src", "href", "onclick"}
    assert "url(" not in approx._repr_html_()


def test_colours_fit_light_and_dark(fitted):
    """Text has the colour around it, but for white on the ground of a verdict, with a contrast of 4.5 at least."""
    _, approx = fitted
    styles = [value or "" for name, value in read(approx).attributes if name == "style"]
    colours = [c for style in styles for c in re.findall(r"(?<!-)\bcolor:([^;]+)", style)]
    assert set(colours) <= {"inherit", "#fff"}
    for good in (True, False, None):
        [ground] = re.findall(r"background:#(\w{6});color:#fff", card("", Status("x", good), {}))
        channels = np.array([int(ground[i : i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(channels < 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5


def test_losses_are_in_nats():
    from dataclasses import replace

    from pymc.variational.report import fit_html

    report = replace(REPORT, loss_factor=0.5, verdict=Verdict(None, "it stands still"))
    texts = Reader(fit_html("Fit", report, np.full(300, 2.0))).texts
    assert "4 in nats of all data, average of the last 300 steps" in texts
    assert "loss in nats of all data, by step" in texts


@pytest.mark.parametrize("share, width", [(-1.0, "0.0%"), (0.25, "25.0%"), (2.0, "100.0%")])
def test_bar(share, width):
    assert f"width:{width}" in bar(share, "")


def points(svg: str) -> np.ndarray:
    [found] = re.findall(r'points="([^"]+)"', svg)
    return np.array([[float(n) for n in pair.split(",")] for pair in found.split()])


def test_chart_is_to_scale():
    drawn = points(chart(np.array([0.0, 1, 4]), np.array([3.0, 1, 2]), "loss"))
    across, down = drawn.T
    assert np.allclose(np.diff(across) / np.ptp(across), [0.25, 0.75], atol=0.01)
    assert np.allclose(np.diff(down) / np.ptp(down), [1, -0.5], atol=0.02)


def test_a_logarithmic_chart():
    _, down = points(chart(np.arange(4), np.array([100.0, 10, 1, 0]), "m", log=True)).T
    assert len(down) == 3  # without the 0
    assert np.allclose(np.diff(down), np.diff(down)[0], atol=0.2)


@pytest.mark.parametrize("draw", [chart, text_chart])
def test_nothing_to_draw(draw):
    assert draw(np.arange(2), np.full(2, np.nan), "loss") == ""
    assert draw(np.arange(0), np.arange(0), "loss") == ""


def test_text_chart():
    lines = text_chart(np.arange(8), np.arange(8.0)[::-1], "loss", 8).splitlines()
    assert len(lines) == 9
    heights = [
        sum(" ▁▂▃▄▅▆▇█".index(c) for c in column)
        for column in zip(*(row[-8:] for row in lines[:8]))
    ]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] > 60 and heights[-1] < 4


@pytest.mark.parametrize("value", [0.0, 1e-9, 3.0, 2e12])
def test_a_flat_chart(value):
    assert points(chart(np.arange(3), np.full(3, value), "loss")).shape == (3, 2)
    assert text_chart(np.arange(3), np.full(3, value), "loss")


def test_block_means():
    values = np.arange(1000.0)
    ends, means = block_means(values, 60)
    assert ends[-1] == 1000
    assert np.average(means, weights=np.diff(ends, prepend=0)) == pytest.approx(values.mean())
    assert block_means(np.array([5.0]))[1].tolist() == [5.0]
    assert block_means(np.empty(0))[1].size == 0
