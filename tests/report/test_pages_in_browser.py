"""The pages in Chromium: nothing fails, nothing is fetched, all is drawn, fits, and can be read.

The screenshots are kept in artifacts/pages/ of the checkout.
"""

import json
from pathlib import Path

import pytest

from ift_jax.report.page import Markup, page
from ift_jax.report.report import report
from tests.report import small_pages
from tests.report.browser import browser, executable

pytestmark = pytest.mark.skipif(executable() is None, reason="no chromium is installed here")

SCREENSHOTS = Path(__file__).parents[2] / "artifacts" / "pages"
WIDTHS = (400, 1400)
MEASURES = """
document.querySelectorAll('details').forEach(details => { details.open = true });
const channels = color => {
  const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number);
  return [r, g, b, a];
};
const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
const luminance = rgb => {
  const [r, g, b] = rgb.map(c => c / 255).map(
    c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const canvas = document.createElement('div');
canvas.style.background = 'Canvas';
document.body.append(canvas);
const paper = channels(getComputedStyle(canvas).backgroundColor).slice(0, 3);
canvas.remove();
// Colors as they are seen: through the opacity of all elements around the text.
const seen = element => {
  const around = [];
  for (let each = element; each; each = each.parentElement) around.unshift(each);
  let ground = paper, opacity = 1;
  for (const each of around) {
    const style = getComputedStyle(each);
    opacity *= Number(style.opacity);
    const [r, g, b, a] = channels(style.backgroundColor);
    ground = over([r, g, b, a * opacity], ground);
  }
  const style = getComputedStyle(element);
  const [r, g, b, a] = channels(element instanceof SVGElement ? style.fill : style.color);
  return [over([r, g, b, a * opacity], ground), ground];
};
const contrast = element => {
  const [dark, light] = seen(element).map(luminance).sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
};
const hasText = element => [...element.childNodes].some(
  node => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
const texts = [...document.body.querySelectorAll('*')].filter(
  element => element.checkVisibility() && hasText(element));
const isInside = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
  && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
const boxOf = element => element.getBoundingClientRect();
const isColored = token => channels(getComputedStyle(token).backgroundColor)[3] > 0;
JSON.stringify({
  scheme: luminance(paper) < 0.5 ? 'dark' : 'light',
  width: document.documentElement.scrollWidth,
  nTexts: texts.length,
  illegible: texts.filter(text => contrast(text) < 4.5).map(
    text => [text.textContent.slice(0, 60), contrast(text)]),
  plots: [...document.querySelectorAll('svg')].map(svg => ({
    width: boxOf(svg).width,
    height: boxOf(svg).height,
    nMarks: [...svg.querySelectorAll('path, use')].filter(
      mark => boxOf(mark).width + boxOf(mark).height > 0).length,
    cutOff: [...svg.querySelectorAll('text')].filter(
      text => !isInside(boxOf(text), boxOf(svg))).map(text => text.textContent),
  })),
  nTokens: document.querySelectorAll('.token').length,
  nColored: [...document.querySelectorAll('.token')].filter(isColored).length,
})
"""


@pytest.fixture(scope="module")
def tab():
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The paths of the pages by name."""
    folder = tmp_path_factory.mktemp("pages")
    run = small_pages.write_run(folder / "run")
    (folder / "report.html").write_text(report([str(run)]))
    (folder / "runs.html").write_text(report([str(run), str(run)], ["one", "other"]))
    return {
        "report": folder / "report.html",
        "runs": folder / "runs.html",
        "inspection": small_pages.write_inspection(folder),
    }


def measure(tab):
    return json.loads(tab.evaluate(f"(() => {{{MEASURES.replace('JSON.', 'return JSON.', 1)}}})()"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["report", "runs", "inspection"])
def test_a_page_works_fits_and_can_be_read(tab, pages, name, width, scheme):
    tab.open(pages[name], width, dark=scheme == "dark")
    found = measure(tab)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    tab.screenshot(SCREENSHOTS / f"{name}-{width}-{scheme}.png", width)
    assert tab.problems == []
    assert tab.requests == [f"file://{pages[name]}"]
    assert found["scheme"] == scheme
    assert found["width"] == width
    assert found["nTexts"] > 20
    assert found["illegible"] == []
    assert len(found["plots"]) == pages[name].read_text().count("<svg")
    for plot in found["plots"]:
        assert 300 < plot["width"] <= min(width, 640), plot
        assert plot["height"] > 80, plot
        assert plot["nMarks"] > 5, plot
        assert plot["cutOff"] == [], plot


def test_as_many_tokens_are_colored_as_the_page_says_are_trained(tab, pages):
    tab.open(pages["inspection"], 1400)
    heads = tab.evaluate(
        "JSON.stringify([...document.querySelectorAll('summary')].map(each => each.textContent)"
        ".filter(text => text.includes('trained')))"
    )
    words = [head.replace(",", "").split() for head in json.loads(heads)]
    assert words
    found = measure(tab)
    assert found["nTokens"] == sum(int(head[-4]) for head in words)
    assert found["nColored"] == sum(int(head[-2]) for head in words) > 0


def test_what_a_page_must_not_do_is_noticed(tab, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><p style='color:#999;width:2000px'>Faint and wide</p>"
        "<svg width=50 height=20><text x=40 y=10>cut off</text></svg>"
        "<img src='https://example.invalid/x.png'><script>console.error('no')</script>"
    )
    tab.open(bad, 400)
    found = measure(tab)
    assert found["width"] > 400
    assert [text for text, _ in found["illegible"]] == ["Faint and wide"]
    assert found["plots"][0]["cutOff"] == ["cut off"]
    assert "https://example.invalid/x.png" in tab.requests
    assert "console.error" in tab.problems


def test_the_browser_refuses_what_a_text_of_a_run_could_bring_in(tab, tmp_path):
    evil = tmp_path / "evil.html"
    markup = "<script>document.title='evil'</script><img src='https://example.invalid/x.png'>"
    evil.write_text(page("good", Markup(markup), []))
    tab.open(evil, 400)
    assert tab.evaluate("document.title") == "good"
    assert len(tab.problems) == 2
    assert all("Content Security Policy" in problem for problem in tab.problems)
