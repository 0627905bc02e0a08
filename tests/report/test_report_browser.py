"""The page in a real browser: both schemes, both widths, hostile names, keyboard, print."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from devtools import Browser

from lilliput.report import write

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="needs chromium: apt-get install chromium")

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
OUTSIDE = """Array.from(document.querySelectorAll('main *')).filter(e => !e.closest('.hidden, .scroll, pre, thead, .switch') && e.getClientRects().length
  && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.tagName + '.' + (e.className.baseVal ?? e.className))"""
SPILLING = """Array.from(document.querySelectorAll('.step, .tile, .findings, .pairs > div, .variants tbody tr')).filter(
  e => e.scrollWidth > e.clientWidth + 1).map(e => e.className)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    one = Browser(str(EXECUTABLE), tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


def background(browser: Browser) -> tuple[int, ...]:
    colour = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    return tuple(int(part) for part in colour[4:-1].split(","))


@pytest.mark.parametrize("width", [390, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_stays_offline_and_follows_the_scheme(browser, make_run, tmp_path, width, scheme):
    browser.open(write(make_run()), width=width, scheme=scheme)
    assert browser.evaluate(OVERFLOW) <= 0
    assert browser.evaluate(OUTSIDE) == []
    assert browser.evaluate(SPILLING) == []
    assert browser.complaints() == []
    assert browser.requests() == []
    assert (sum(background(browser)) > 600) == (scheme == "light")
    picture = tmp_path / f"{scheme}-{width}.png"
    browser.screenshot(picture)
    assert picture.stat().st_size > 50_000


def test_hostile_names_neither_run_nor_widen_the_page(browser, make_run, hostile):
    browser.open(write(make_run(**hostile)), width=390)
    assert browser.evaluate("window.hacked") is None
    assert browser.evaluate("document.querySelectorAll('img, script:not([type]), iframe, a[href^=http]').length") == 1
    assert browser.evaluate(OVERFLOW) <= 0
    assert browser.requests() == []
    assert browser.complaints() == []
    assert "</script><script>" in browser.evaluate("JSON.parse(document.getElementById('figures').textContent).name")


def test_content_policy_stops_a_script_even_if_one_got_in(browser, make_run):
    path = write(make_run())
    path.write_text(path.read_text().replace("</footer>", "<script>window.hacked = 1</script><img src='https://example.invalid/x'></footer>"))
    browser.open(path, width=800)
    assert browser.evaluate("window.hacked") is None
    assert browser.complaints() != []


def test_selectors_work_by_keyboard(browser, make_run):
    browser.open(write(make_run()), width=1440)
    visible = "Array.from(document.querySelectorAll('.panel')).filter(p => p.getClientRects().length).map(p => p.className)"
    assert browser.evaluate(visible) == ["panel p1", "panel p1"]
    browser.evaluate("document.getElementById('cost-macs').focus()")
    browser.press("ArrowRight", 39)
    assert browser.evaluate(visible) == ["panel p2", "panel p1"]
    assert browser.evaluate("document.activeElement.id") == "cost-params"


def test_layer_table_sorts_by_figure(browser, make_run):
    browser.open(write(make_run()), width=1440)
    first = "document.querySelector('.layers tbody tr th').textContent"
    button = "Array.from(document.querySelectorAll('.layers thead button')).find(b => b.textContent === 'Activation SQNR')"
    browser.evaluate(f"{button}.click()")
    assert browser.evaluate(first) == "stages.1.0.conv1"
    assert browser.evaluate(f"{button}.closest('th').getAttribute('aria-sort')") == "ascending"
    browser.evaluate(f"{button}.click()")
    assert browser.evaluate(first) != "stages.1.0.conv1"


def test_print_shows_every_panel_in_light_colours(browser, make_run):
    browser.open(write(make_run()), width=800, scheme="dark", media="print")
    shown = browser.evaluate("Array.from(document.querySelectorAll('.panel')).filter(p => p.getClientRects().length).length")
    assert shown == browser.evaluate("document.querySelectorAll('.panel').length") == 10
    assert background(browser) == (255, 255, 255)


def test_plot_labels_do_not_overlap(browser, make_run):
    path = write(make_run())
    for width in (390, 1440):
        browser.open(path, width=width)
        crossing = browser.evaluate("""(() => {
          const tags = Array.from(document.querySelectorAll('.p1 .point .tag')).filter(t => t.getClientRects().length)
            .map(t => Array.from(t.querySelectorAll('circle, text')).map(e => e.getBoundingClientRect()));
          let count = 0;
          tags.forEach((a, i) => tags.slice(i + 1).forEach(b => a.forEach(p => b.forEach(q => {
            if (p.left < q.right && q.left < p.right && p.top < q.bottom && q.top < p.bottom) count += 1; }))));
          return [tags.length, count]; })()""")
        assert crossing == [5, 0], width


def test_empty_and_half_finished_runs_open_cleanly(browser, make_run, variants):
    for part in ([], variants[:1], variants[:2]):
        browser.open(write(make_run(variants=part, status="running")), width=390)
        assert browser.evaluate(OVERFLOW) <= 0
        assert browser.complaints() == []
        assert "has not finished" in browser.evaluate("document.body.textContent")


def test_keeps_pictures_where_asked(browser, make_run, tmp_path):
    import os
    folder = Path(os.environ.get("LILLIPUT_PICTURES", tmp_path))
    path = write(make_run())
    for scheme in ("light", "dark"):
        for width in (390, 1440):
            browser.open(path, width=width, scheme=scheme)
            browser.screenshot(folder / f"report-{scheme}-{width}.png")
            assert (folder / f"report-{scheme}-{width}.png").stat().st_size > 50_000
