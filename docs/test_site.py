# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The built site in a browser: ``make docs-test``. Screenshots are in ``build/site``.

The browser is Chromium of the machine (``apt-get install chromium``), or the program in ``$CHROMIUM``.
"""

import functools
import json
import os
import re
import shutil
import threading

from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "docs" / "_build" / "html"
SCREENSHOTS = ROOT / "build" / "site"
WIDTHS = 1280, 400  # px
SCHEMES = "light", "dark"

# One page of each type
PAGES = {
    "index": "index.html",
    "section": "how_to/index.html",
    "notebook": "tutorials/flights.html",
    "how_to": "how_to/learning_rates.html",
    "equations": "explanation/plates.html",
    "tables": "explanation/errors.html",
    "api": "api/index.html",
    "name": "api/generated/pymc.DataLoader.html",
    "source": "_modules/pymc/data_loading/data_loader.html",
    "upstream": "upstream.html",
}

# Elements of the article whose text ends where nobody can scroll to it
CUT = """() => [...document.querySelectorAll('article *, .bd-header *, .bd-footer-article *')].filter(e => {
    const style = getComputedStyle(e);
    return e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 1 && style.display != 'inline'
        && ['hidden', 'clip'].includes(style.overflowX) && e.innerText && !e.closest('.sd-stretched-link');
}).map(e => e.outerHTML.slice(0, 200))"""
# Blocks of code with lines of up to 100 columns that need a scrollbar
SCROLLED = """() => [...document.querySelectorAll('article .highlight pre')].filter(e =>
    e.scrollWidth > e.clientWidth && Math.max(...e.innerText.split('\\n').map(l => l.length)) <= 100
).map(e => e.innerText.slice(0, 200))"""
PICTURES = """() => [...document.querySelectorAll('article img')].map(
    e => [e.getAttribute('src'), e.complete && e.naturalWidth > 0, e.alt])"""


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    assert HTML.joinpath("index.html").is_file(), "build the site first: make docs"
    handler = functools.partial(QuietHandler, directory=str(HTML))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert program, "no chromium on PATH: apt-get install chromium, or set CHROMIUM to a program"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, chromium_sandbox=os.geteuid() != 0
        )
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser, site: str) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=site, viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context
    context.close()


def open_page(context: BrowserContext, path: str) -> tuple[Page, list[str]]:
    """Open a page; what goes wrong on it is appended to the list."""
    page, faults = context.new_page(), []
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "response", lambda r: faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None
    )
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    page.on(
        "request",
        lambda request: (
            None if "//127.0.0.1:" in request.url else faults.append(f"elsewhere: {request.url}")
        ),
    )
    page.goto(path)
    page.wait_for_load_state("networkidle")
    return page, faults


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", PAGES)
def test_page_is_readable(browser: Browser, site: str, kind: str, width: int, scheme: str) -> None:
    context = browser.new_context(
        base_url=site,
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page, faults = open_page(context, PAGES[kind])
    assert page.locator("html").get_attribute("data-theme") == scheme
    for picture in page.locator("article img").all():
        picture.scroll_into_view_if_needed()  # they load when they are near
    page.wait_for_load_state("networkidle")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=SCREENSHOTS / f"{kind}_{width}_{scheme}.png")

    assert [src for src, loaded, alt in page.evaluate(PICTURES) if not (loaded and alt)] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == []
    if width == 1280:
        assert page.evaluate(SCROLLED) == []
    assert faults == []
    found = Axe().run(page).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in serious] == []
    context.close()


def test_pictures_of_the_gallery_load(context: BrowserContext) -> None:
    page, _ = open_page(context, "index.html")
    assert page.locator("article img").count() >= 6


def test_search_finds_learning_rate(context: BrowserContext) -> None:
    page, faults = open_page(context, "index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("learning rate")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li p.context")
    found = page.locator("#search-results li a").evaluate_all("a => a.map(e => e.href)")
    assert any("how_to/learning_rates.html" in to for to in found)
    assert "learning rate" in page.locator("#search-results").inner_text().lower()
    page.screenshot(path=SCREENSHOTS / "search.png")
    assert faults == []


def test_copy_button_copies_the_code_without_prompts(context: BrowserContext) -> None:
    page, _ = open_page(context, PAGES["equations"])
    block = page.locator("div.highlight", has_text=">>> ").first
    block.hover()
    block.locator("button.copybtn").click()
    page.wait_for_selector("button.copybtn.success")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied
    assert ">>>" not in copied
    assert all(line in block.inner_text() for line in copied.splitlines())


def test_keyboard_alone_reaches_and_shows_everything(context: BrowserContext) -> None:
    page, _ = open_page(context, PAGES["how_to"])
    focused = "document.activeElement.innerText.trim()"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Skip to main content"
    page.keyboard.press("Enter")
    assert page.url.endswith("#main-content")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")
    seen = []
    for _ in range(200):
        page.keyboard.press("Tab")
        marks, tag = page.evaluate(
            """(e => [[getComputedStyle(e).outlineStyle, getComputedStyle(e).boxShadow], e.tagName])(
            document.activeElement)"""
        )
        if tag == "BODY":
            break
        seen.append(page.evaluate(focused))
        assert marks != ["none", "none"], seen[-1]
    assert any("Compose optimizers" in text for text in seen)  # the next page


def test_theme_can_be_chosen_and_stays(context: BrowserContext) -> None:
    page, _ = open_page(context, PAGES["how_to"])
    page.locator("button[data-bs-toggle=dropdown]", has=page.locator(".theme-switch")).first.click()
    page.locator("[data-mode=dark] >> visible=true").first.click()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.goto(PAGES["api"])
    assert page.locator("html").get_attribute("data-theme") == "dark"


def test_navigation_of_a_narrow_window(browser: Browser, site: str) -> None:
    context = browser.new_context(base_url=site, viewport={"width": 400, "height": 900})
    page, faults = open_page(context, PAGES["how_to"])
    page.locator("button.primary-toggle").click()
    page.get_by_role("link", name="Choose a guide").locator("visible=true").first.wait_for()
    page.screenshot(path=SCREENSHOTS / "navigation_400.png")
    page.get_by_role("link", name="Choose a guide").locator("visible=true").first.click()
    page.wait_for_url("**/guides.html")
    assert faults == []
    context.close()


def test_pages_lead_to_the_previous_and_the_next(context: BrowserContext) -> None:
    page, _ = open_page(context, PAGES["how_to"])
    page.locator("a.right-next").click()
    page.wait_for_url("**/optimizers.html")
    page.locator("a.left-prev").click()
    page.wait_for_url("**/learning_rates.html")


def test_tutorial_is_a_notebook_with_its_outputs(context: BrowserContext) -> None:
    page, _ = open_page(context, PAGES["notebook"])
    with page.expect_download() as started:
        page.get_by_text("Download this page as a notebook").click()
    notebook = json.loads(Path(started.value.path()).read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert any("def robust_regression" in "".join(cell["source"]) for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not any(output["output_type"] == "error" for output in outputs)


class Links(HTMLParser):
    """The links and the anchors of a page, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(values["href"])
        elif "src" in values:
            self.loaded.append(values["src"])


def test_no_dead_links_and_nothing_from_another_host() -> None:
    pages = {
        path: Links(path.read_text())
        for path in HTML.rglob("*.html")
        if "_static" not in path.parts
    }
    assert len(pages) > 100
    dead = set()
    for path, page in pages.items():
        for link in page.links + page.loaded:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                if link in page.loaded and url.scheme != "data":
                    dead.add((path.name, f"from another host: {link}"))
                continue
            to = (path.parent / unquote(url.path)).resolve() if url.path else path
            fragment = unquote(url.fragment)
            if not to.exists() or (to in pages and fragment and fragment not in pages[to].anchors):
                dead.add((path.name, link))
    assert sorted(dead) == []


def test_each_error_has_an_anchor() -> None:
    page = Links(HTML.joinpath("explanation", "errors.html").read_text())
    text = ROOT.joinpath("docs", "explanation", "errors.md").read_text()
    rows = re.findall(r"^\| `.*$", text.split("| message |")[1].split("\n\n")[0], re.MULTILINE)
    assert len(rows) > 20
    assert len([anchor for anchor in page.anchors if anchor.startswith("error-")]) >= len(rows)
