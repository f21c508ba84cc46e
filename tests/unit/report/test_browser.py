"""The page in headless Chromium: no error, no network, everything that can be clicked, laptop and phone, light and
dark; and a long run's page within its limits of size and time."""

import numpy as np
import pytest

from mgs_trl.report import write_report
from mgs_trl.report.conflicts import summarise
from mgs_trl.report.facts import run_facts
from mgs_trl.report.page import render
from mgs_trl.report.read import RunFiles

from .chromium import CHROMIUM, chromium_page
from .logs import DOMAINS, conflict_lines, gramians, metric_lines, module_names, write_lines, write_run
from .test_studies import TABLE

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is absent: apt-get install chromium")

VISIBLE = "[...document.querySelectorAll('figure.chart')].filter(f => f.offsetParent)"
INK = """(() => { const c = [...document.querySelectorAll('canvas.map')].find(c => c.offsetParent);
const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
return new Set(Array.from({length: p.length / 4}, (_, i) => `${p[4*i]},${p[4*i+1]},${p[4*i+2]}`)).size })()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with chromium_page(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    runs = [write_run(folder / "mgs"), write_run(folder / "mixed", seed=1)]
    (runs[1] / "conflicts.jsonl").unlink()
    write_report(runs, folder / "report.html")
    return folder / "report.html"


def show_everything(page):
    """Scroll to the end; the page grows on the way, as legends are drawn."""
    page.run("scrollTo({top: 0, behavior: 'instant'})")
    page.settle()
    while not page.run("scrollY + innerHeight >= document.documentElement.scrollHeight - 2"):
        page.run("scrollBy({top: 600, behavior: 'instant'})")
        page.settle()


def point(page, place, inside, right, top):
    """Text of the tip with the mouse so many pixels from the right and top of an element."""
    page.run(f"document.querySelector('{place}').scrollIntoView({{behavior: 'instant', block: 'center'}})")
    page.settle()
    box = f"document.querySelector('{place} {inside}').getBoundingClientRect()"
    x, y = page.run(f"(r => [r.right - {right}, r.top + {top}])({box})")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    page.settle()
    return page.run("document.getElementById('tip').innerText")


def choose(page, selector, value):
    page.run(
        f"(e => {{ e.value = '{value}'; e.dispatchEvent(new Event('change')) }})(document.querySelector('{selector}'))"
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width, phone", [(1366, False), (390, True)], ids=["laptop", "phone"])
def test_every_chart_is_drawn_inside_the_width(page, two_runs, width, phone, dark):
    page.emulate(width, 900, dark, phone)
    page.open(two_runs)
    show_everything(page)
    assert page.run(VISIBLE + ".length") >= 12
    assert page.run(VISIBLE + ".filter(f => !f.querySelector('svg.plot path')).length") == 0
    assert page.run(INK) > 50
    assert page.run("document.documentElement.scrollWidth") <= width
    background = page.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (background < 60) == dark
    assert page.errors == []


@pytest.mark.parametrize("width, phone", [(1366, False), (390, True)], ids=["laptop", "phone"])
def test_a_study_fits_the_width_and_its_bars_lie_where_the_numbers_say(page, tmp_path, width, phone):
    (tmp_path / "study.csv").write_text(TABLE)
    write_report([tmp_path], tmp_path / "report.html")
    page.emulate(width, 900, False, phone)
    page.open(tmp_path / "report.html")
    page.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    show_everything(page)
    assert page.run("document.documentElement.scrollWidth") <= width
    boxes = page.run("""[...document.querySelectorAll('.intervals > div:not(.axis)')].map(row => {
        const box = (e) => { const r = row.querySelector(e).getBoundingClientRect(); return [r.left, r.right]; };
        return [row.querySelector('.n').innerText, box('.zero')[0], ...box('.reach')] })""")
    assert len(boxes) == 4
    for text, zero, left, right in boxes:
        low, high = (float(number.replace("−", "-")) for number in text.split("[")[1].strip("]").split(","))
        assert (right - zero) * low == pytest.approx((left - zero) * high, abs=1.5 * (abs(low) + abs(high)))
    assert page.errors == []


def test_clicking_through(page, two_runs):
    page.emulate(1366, 900)
    page.open(two_runs)
    show_everything(page)
    lines = "document.querySelector('figure.chart svg.plot').querySelectorAll('g > path').length"
    before = page.run(lines)
    page.run("document.querySelector('figure.chart .legend button').click()")
    assert 0 < page.run(lines) < before
    page.run("document.querySelector('figure.chart .legend button').click()")
    assert page.run(lines) == before

    image = "document.querySelector('canvas.map').toDataURL()"
    seen = {page.run(image)}
    for pair in range(1, 3):
        page.run(f"document.querySelector('[name=pair]').selectedIndex = {pair}")
        page.run("document.querySelector('[name=pair]').dispatchEvent(new Event('change'))")
        seen.add(page.run(image))
    choose(page, "[name=order]", "kind")
    seen.add(page.run(image))
    assert len(seen) == 4
    choose(page, "[name=view]", "numbers")
    assert page.run("document.querySelectorAll('.numbers tbody tr').length") == len(module_names(2)[0])
    assert page.run("/^[+−]0\\.\\d{3}$/.test(document.querySelector('.numbers td').textContent)")
    choose(page, "[name=view]", "colours")

    rows = (
        "[...document.querySelectorAll('section.run:not([hidden]) tr[data-kind]')].filter(r => r.offsetParent).length"
    )
    everything = page.run(rows)
    choose(page, "[name=kind]", "norm")
    assert page.run(rows) == 1 + 2  # the kind and a norm in each of two layers
    choose(page, "[name=kind]", "")
    assert page.run(rows) == everything
    choose(page, "#smoothing", "21")

    page.run("document.querySelectorAll('.tabs button')[1].click()")
    show_everything(page)
    assert page.run("document.querySelectorAll('section.run')[0].offsetParent === null")
    assert "no conflicts.jsonl" in page.run("document.querySelectorAll('section.run')[1].innerText")
    for part in ("comparison", "findings", "training", "record"):
        page.run(f"document.querySelector('nav a[data-to={part}]').click()")
    page.run("document.querySelectorAll('summary').forEach(s => s.click())")
    page.settle()
    assert page.errors == []


def test_pointing_shows_logged_values(page, two_runs):
    page.emulate(1366, 900)
    page.open(two_runs)
    tip = point(page, "[data-group=training]", "svg.plot", 12, 60)
    last = page.run("data.runs[0].charts.training[0].series[0].values.at(-1)")
    assert "step 60" in tip
    assert f"chat: {last:.4g}" in tip
    tip = point(page, ".heat", "canvas.map", 2, 2)
    assert "model.embed_tokens (embedding)" in tip and "step 60" in tip and "cosine" in tip
    assert page.errors == []


def test_stages_of_a_sequence_are_marked(page, tmp_path):
    lines = metric_lines(20, ["chat", "math"])
    write_lines(tmp_path / "metrics.jsonl", [{**x, "stage": "1_math" if x["step"] <= 8 else "2_chat"} for x in lines])
    write_report([tmp_path], tmp_path / "report.html")
    page.emulate(1366, 900)
    page.open(tmp_path / "report.html")
    show_everything(page)
    chart = "document.querySelector('figure.chart svg.plot')"
    assert page.run(f"[...{chart}.querySelectorAll('text.stage')].map(t => t.textContent)") == ["1_math", "2_chat"]
    first, second = page.run(f"[...{chart}.querySelectorAll('path.stage')].map(p => p.getBoundingClientRect().x)")
    box = f"(b => [b.left, b.right])({chart}.getBoundingClientRect())"
    left, right = page.run(box)
    assert left < first < second < right and (second - first) / (right - left) == pytest.approx(8 / 20, abs=0.1)
    assert page.errors == []


@pytest.mark.slow
def test_fifty_thousand_steps_of_three_hundred_modules(page, tmp_path):
    """Under 20 MB, and open in under 5 s (with a factor for busy machines: the figure itself is in docs/report.md)."""
    steps, layers = 50_000, 99
    names, _ = module_names(layers)
    assert len(names) == 299
    distinct = gramians(40, len(names), len(DOMAINS), conflict=0.1)
    weights = 1 + np.random.default_rng(0).random((40, len(names), len(DOMAINS))) / 5
    lines = conflict_lines(distinct, weights, layers=layers)
    for line in lines:
        line["gramian"], line["weights"] = np.array(line["gramian"]), np.array(line["weights"])
    conflicts = summarise((lines[i % 40] | {"step": i + 1} for i in range(steps)), steps)
    assert conflicts is not None and len(conflicts.steps) == steps
    run = RunFiles(tmp_path, "long", metric_lines(steps, evaluate=500), tmp_path / "metrics.jsonl", max_steps=steps)
    path = tmp_path / "report.html"
    path.write_text(render([run_facts(run, conflicts)]))
    assert path.stat().st_size < 20e6
    assert "Heat map: 50,000 logged steps in 400 columns" in path.read_text()
    page.emulate(1366, 900)
    assert page.open(path) < 30
    show_everything(page)
    print(f"{path.stat().st_size / 1e6:.1f} MB, opened in {page.open(path):.2f} s")
    assert page.errors == []
