"""The report in a browser: what is clicked is what is shown, by mouse and by keyboard, and nothing leaves the page."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import whatwhere as ww
from whatwhere import runs
from whatwhere.catalogue import make_model
from whatwhere.exploration import ExploredRun, explore_runs, parts
from whatwhere.metrics import SCORES
from whatwhere.report.explorer import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

HOSTILE = "<img src=x onerror=window.broken=1>"
HEIGHT, WIDTH = 24, 36
MOST_MILLISECONDS = 3000  # generous: the machine may be busy; 100 is what is meant
CLICKS_TIMED = """() => {  // from before the page hears of a click until it has drawn all
  window.clicksTook = [];
  let began = 0;
  addEventListener("click", () => { began = performance.now(); }, true);
  addEventListener("click", () => { clicksTook.push(performance.now() - began); });
}"""


def recording(n_neurons: int = 30, n_channels: int = 1, test: bool = True) -> ww.Recording:
    """Neurons that each see one pixel of their own, so that a short fit finds them."""
    rng = np.random.default_rng(1)
    places = rng.permutation((HEIGHT - 8) * (WIDTH - 8))[:n_neurons]
    rows, columns = 4 + places // (WIDTH - 8), 4 + places % (WIDTH - 8)
    shown = [rng.normal(size=(n, n_channels, HEIGHT, WIDTH)).astype(np.float32) for n in (300, 25)]
    rates = [images[:, 0, rows, columns] for images in shown]
    held = ww.HeldOut.from_repeats(shown[1], rates[1] + 0.5 * rng.normal(size=(4, 25, n_neurons)))
    names = [f"cell {number}" for number in range(n_neurons - 1)] + [HOSTILE]
    neurons = pd.DataFrame({"depth": rng.uniform(100, 400, n_neurons)}, index=names)
    responses = rates[0] + 0.5 * rng.normal(size=rates[0].shape)
    return ww.Recording(shown[0], responses, test=held if test else None, neurons=neurons, name=HOSTILE)


def fitted(name: str, given: ww.Recording, folder: Path) -> Path:
    values: dict[str, Any] = {"strengths": [1.0, 100.0]}
    if name != "ridge":
        training = {"batch_size": 50, "max_steps": 40, "check_every": 20}
        values = {"core": {"kernel_sizes": [5], "n_maps": 2}, "training": training}
    runs.fit_run(make_model(name, values, preset="simulation"), given, folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything: posterior, fields, exciting images and types."""
    given = recording()
    folder = fitted("posterior", given, tmp_path_factory.mktemp("browser") / "posterior")
    rng = np.random.default_rng(2)
    names = list(given.neurons.index)
    fields = rng.normal(size=(30, 1, 9, 9))
    np.savez(folder / "fields.npz", fields=fields, corners=np.full((30, 2), 5), neurons=names)
    np.savez(folder / "most_exciting.npz", images=rng.normal(size=(30, 1, HEIGHT, WIDTH)), neurons=names)
    types = [["on", "off", HOSTILE][number % 3] for number in range(30)]
    pd.DataFrame({"neuron": given.neurons.index, "type": types, "confidence": 0.5}).to_csv(
        folder / "types.csv", index=False
    )
    return folder


@pytest.fixture(scope="module")
def report(run: Path) -> Path:
    other = fitted("ridge", recording(), run.parent / "ridge")
    return write_report(explore_runs([run, other]), run.parent / "report.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Watched:
    """A page that remembers every complaint and every request."""

    def __init__(self, browser: Any, file: Path, width: int = 1400) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900})
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("body[data-ready=yes]")
        self.file = file

    def end(self) -> None:
        """Closes it; raises where something was wrong at any time."""
        assert self.complaints == []
        assert [url for url in self.requests if url != self.file.as_uri() and not url.startswith("data:")] == []
        assert self.page.evaluate("window.broken") is None
        assert self.page.evaluate("document.querySelectorAll('img').length") == 0
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the screen"
        self.context.close()

    def shown(self) -> dict[str, str]:
        """The chosen neuron's title and scores."""
        scores = self.page.eval_on_selector_all(
            "[data-score]", "found => found.map(one => [one.dataset.score, one.firstChild.textContent])"
        )
        return {"title": self.page.inner_text("#neuron-title"), **dict(scores)}

    def rows(self) -> list[str]:
        """The names in the first rows of the table."""
        return self.page.eval_on_selector_all(
            "#table [data-place]", "found => found.map(one => one.firstChild.textContent)"
        )


@pytest.fixture
def watched(browser: Any, report: Path) -> Iterator[Watched]:
    found = Watched(browser, report)
    yield found
    found.end()


def kept(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "scores.csv", dtype={"neuron": str}).set_index("neuron")


def text(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def test_a_click_on_the_map_shows_that_neuron(watched: Watched, run: Path) -> None:
    scores, page = kept(run), watched.page
    alone = scores[~scores.duplicated(["row", "column"], keep=False)]
    assert len(alone) > 5
    box = page.locator("#map").bounding_box()
    scale = min(box["width"] / WIDTH, 440 / HEIGHT)
    left = (box["width"] - scale * WIDTH) / 2
    page.evaluate(CLICKS_TIMED)
    for name in [alone.index[0], alone.index[-1]]:
        row, column = alone.loc[name, ["row", "column"]]
        page.locator("#map").click(position={"x": left + (column + 0.5) * scale, "y": (row + 0.5) * scale})
        shown = watched.shown()
        assert shown["title"] == f"Neuron {name}"
        for score in ("correlation", "feve", "noise_ceiling"):
            value = scores.loc[name, score]
            assert shown[score] == ("–" if np.isnan(value) else text(value))
        assert f"at row {row:.1f}, column {column:.1f}" in page.inner_text("#neuron-facts")
        assert name in page.get_attribute("#map", "aria-label")
        labels = page.eval_on_selector_all("#figures canvas[role=img]", "all => all.map(one => one.ariaLabel)")
        assert sum(f"of neuron {name}" in label for label in labels) == 6
    times = page.evaluate("clicksTook")
    assert len(times) == 2
    print(f"from click to drawn panel: {max(times):.0f} ms")  # noqa: T201  # for pytest -s
    assert max(times) < MOST_MILLISECONDS


def test_the_table_is_sorted_searched_and_walked(watched: Watched, run: Path) -> None:
    scores, page = kept(run), watched.page
    best = scores.sort_values("correlation", ascending=False, kind="stable")
    assert watched.rows()[:5] == list(best.index[:5])
    page.locator("#table [data-key=feve] button").click()
    assert page.get_attribute("#table [data-key=feve]", "aria-sort") == "descending"
    by_feve = scores["feve"].sort_values(ascending=False, kind="stable")
    assert watched.rows()[:4] == list(by_feve.index[:4])
    page.locator("#table [data-key=name] button").click()
    assert watched.rows()[1:12] == [f"cell {number}" for number in range(11)]  # 10 after 9, not after 1

    page.locator("#table").focus()
    for key in ("Home", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    assert watched.shown()["title"] == "Neuron cell 1"
    assert watched.shown()["correlation"] == text(scores.loc["cell 1", "correlation"])
    assert page.get_attribute("#table", "aria-activedescendant") == "row-2"
    assert "Neuron cell 1" in page.inner_text("#live")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    assert watched.shown()["title"] == "Neuron cell 28"

    page.fill("#search", "correlation > 0.5")
    n_good = int((scores["correlation"] > 0.5).sum())
    assert page.inner_text("#found") == (f"{n_good} of 30 neurons" if n_good < 30 else "30 neurons")
    page.fill("#search", "<IMG")
    assert sorted(watched.rows()) == sorted([HOSTILE, *(f"cell {number}" for number in range(2, 29, 3))])
    page.fill("#search", "cell 17")
    page.keyboard.press("Enter")
    assert watched.shown()["title"] == "Neuron cell 17"
    page.fill("#search", "no such neuron")
    assert page.inner_text("#table .none") == "No neuron matches."


def test_arrow_keys_walk_on_the_map(watched: Watched, run: Path) -> None:
    scores, page = kept(run), watched.page
    middle = (scores[["row", "column"]] - scores[["row", "column"]].median()).abs().sum(axis=1).idxmin()
    page.fill("#search", middle)
    page.keyboard.press("Enter")
    assert watched.shown()["title"] == f"Neuron {middle}"
    page.locator("#map").focus()
    before = scores.loc[middle]
    walk = [("ArrowRight", "column", 1), ("ArrowLeft", "column", -1), ("ArrowDown", "row", 1), ("ArrowUp", "row", -1)]
    for key, name, sign in walk:
        page.keyboard.press(key)
        after = scores.loc[watched.shown()["title"].removeprefix("Neuron ")]
        assert after.name != before.name
        assert sign * (after[name] - before[name]) >= -0.9  # those of one pixel are spread within it
        before = after


def test_runs_are_shown_in_turn_and_beside_each_other(watched: Watched, run: Path) -> None:
    page, ridge = watched.page, kept(run.parent / "ridge")
    name = watched.shown()["title"].removeprefix("Neuron ")
    page.get_by_role("button", name="ridge").click()
    assert watched.shown()["title"] == f"Neuron {name}"
    assert watched.shown()["correlation"] == text(ridge.loc[name, "correlation"])
    assert page.locator("#map").is_hidden()
    assert "sees the whole image" in page.inner_text("#no-map")
    assert page.locator("#figures h3", has_text="Filter").count() == 1
    assert page.locator("#figures h3", has_text="Mask").count() == 0
    difference = (kept(run)["correlation"] - ridge["correlation"]).mean()
    assert text(difference) in page.inner_text("#comparison-tables")
    both = page.inner_text("#comparison-figure figcaption")
    n_above = int((kept(run)["correlation"] > ridge["correlation"]).sum())
    assert f"Correlation of 30 neurons: {n_above} above the dashed line, better in posterior" in both
    label = page.get_attribute("#comparison-figure canvas", "aria-label")
    assert label.startswith(both)
    assert "chosen here by mouse; without one by the table of neurons" in label
    page.select_option("#compare-score", "feve")
    assert "FEVE of" in page.inner_text("#comparison-figure figcaption")


def test_any_score_of_the_models_is_compared_and_those_of_the_responses_alone_are_not(
    browser: Any, run: Path, report: Path
) -> None:
    explored = explore_runs([run, report.parent / "ridge"])

    def with_all(of: ExploredRun) -> ExploredRun:
        """As of a simulated recording of counts: FEV and bits per spike too."""
        more = {"fev": "feve", "log_likelihood_bits_per_spike": "single_trial_correlation"}
        scores = of.scores.assign(**{name: of.scores[like] for name, like in more.items()})
        return replace(of, scores=scores, summary={**of.summary, **{name: of.summary[m] for name, m in more.items()}})

    both = replace(explored, runs=tuple(map(with_all, explored.runs)))
    watched = Watched(browser, write_report(both, report.parent / "all-scores.html"))
    page = watched.page
    names = page.eval_on_selector_all("#compare-score option", "all => all.map(one => one.value)")
    assert names == [name for name, score in SCORES.items() if score.of_predictions]
    shown = ["Bits per spike", "Correlation", "FEV", "FEVE"]
    page.select_option("#compare-score", "log_likelihood_bits_per_spike")
    assert page.locator("#comparison-tables th[scope=col]").all_inner_texts() == ["run", *shown, "pair", *shown]
    page.select_option("#compare-score", "feve")
    assert page.locator("#comparison-tables th[scope=col]").all_inner_texts()[:5] == [
        *("run", "FEVE", "Correlation", "FEV", "Normalised correlation")
    ]
    watched.end()


def test_the_posteriors_numbers_are_the_models(watched: Watched, run: Path) -> None:
    model = ww.load_model(run)
    place = model.neurons_.index("cell 4")
    watched.page.fill("#search", "cell 4")
    watched.page.keyboard.press("Enter")
    figure = watched.page.locator("#figures figure", has_text="Location posterior").locator("figcaption")
    n_pixels = int(model.credible_regions(0.9)[place].sum())
    assert figure.inner_text() == (
        f"Framed, {n_pixels:,} pixel{'s'[: n_pixels > 1]}: where it is with 90 % probability. Most probable pixel"
        f" {100 * model.location_posterior_[place].max():.0f} %, uncertainty {model.location_entropy_[place]:.2f} nats."
    )


def test_the_kernels_numbers_are_those_of_the_barcode(watched: Watched) -> None:
    grid = watched.page.locator("#population-figures .kernels figure")
    assert grid.all_inner_texts() == ["0", "1"]
    labels = [grid.nth(k).locator("canvas").get_attribute("aria-label") for k in range(2)]
    assert labels == ["Kernel 0", "Kernel 1"]


def test_the_scatter_names_its_test_images(watched: Watched, run: Path) -> None:
    page = watched.page
    name = watched.shown()["title"].removeprefix("Neuron ")
    with np.load(run / "heldout.npz") as file:
        held = {key: file[key] for key in ("observed", "predictions")}
    place = list(kept(run).index).index(name)
    least = int(held["observed"][:, place].argmin())
    page.locator("#figures figure", has_text="Predicted against observed").locator("canvas").first.focus()
    page.keyboard.press("ArrowRight")
    said = re.match(r"Image (\d+): observed ([\d.−]+) \(mean of 4\), predicted ([\d.−]+)", page.inner_text("#live"))
    assert int(said[1]) == least
    assert float(said[2].replace("−", "-")) == pytest.approx(held["observed"][least, place], abs=0.01)
    assert float(said[3].replace("−", "-")) == pytest.approx(held["predictions"][least, place], abs=0.01)


@pytest.mark.parametrize("width", [1400, 420])
def test_everything_has_a_name_and_a_place(browser: Any, report: Path, width: int) -> None:
    watched = Watched(browser, report, width)
    unnamed = watched.page.evaluate(
        """[...document.querySelectorAll('canvas, button, select, input')].filter(one => !one.ariaLabel
           && !one.closest('label, [aria-hidden=true]') && !one.textContent.trim()).map(one => one.outerHTML)"""
    )
    assert unnamed == []
    watched.page.wait_for_timeout(400)  # a scrollbar has come by now, and what it narrows is drawn anew
    other_size = watched.page.evaluate(
        """[...document.querySelectorAll('figure > canvas:not(.pixels)')].filter(one => {
             const drawn = one.width / Math.min(3, devicePixelRatio);
             return Math.abs(one.getBoundingClientRect().width - drawn) > 1;
           }).map(one => one.outerHTML.slice(0, 90))"""
    )
    assert other_size == []
    clipped = watched.page.evaluate(
        """[...document.querySelectorAll('figure, .numbers li, .facts div, h1, h2, p')].filter(one => {
             const box = one.getBoundingClientRect();
             return box.width > 1 && (box.right > innerWidth + 1 || box.left < -1);
           }).map(one => one.outerHTML.slice(0, 90))"""
    )
    assert clipped == []
    watched.page.emulate_media(media="print")
    stretched = watched.page.evaluate(
        """[...document.querySelectorAll('canvas')].filter(one => {
             const box = one.getBoundingClientRect();
             return box.width > 30 && Math.abs((box.width / box.height) / (one.width / one.height) - 1) > 0.05;
           }).map(one => one.outerHTML.slice(0, 90))"""
    )
    assert stretched == []
    assert watched.page.locator("#table [data-key=name]").is_visible()
    assert watched.page.locator("#search").is_hidden()
    watched.page.emulate_media(media="screen")
    watched.end()


@pytest.mark.parametrize(
    ("name", "n_neurons", "n_channels", "test"), [("factorized", 1, 3, True), ("ridge", 3, 2, False)]
)
def test_what_there_is_not_is_left_out_and_said(
    browser: Any, tmp_path: Path, name: str, n_neurons: int, n_channels: int, test: bool
) -> None:
    folder = fitted(name, recording(n_neurons, n_channels, test), tmp_path / "run")
    watched = Watched(browser, write_report(explore_runs([folder]), tmp_path / "report.html"))
    page = watched.page
    assert page.inner_text("#neuron-title").startswith("Neuron ")
    assert page.locator("#comparison").is_hidden()
    said = page.inner_text("#absent")
    assert ("No predicted and observed responses" in said) == (not test)
    assert ("No masks, barcodes and kernels: a ridge model has no core" in said) == (name == "ridge")
    assert page.locator("#map").is_visible() == (name == "factorized")
    assert page.locator("#figures h3", has_text="Predicted against observed").count() == int(test)
    if not test:
        assert "No test set: nothing here was checked" in page.inner_text("#attention")
        assert "Channels 0 to 1 from left to right" in page.inner_text("#figures")
    watched.end()


def test_a_page_that_becomes_narrower_is_drawn_anew(watched: Watched) -> None:
    watched.page.evaluate("document.body.style.marginRight = '300px'")  # without any event of the window
    watched.page.wait_for_function(
        """() => {
             const map = document.querySelector('#map');
             return Math.abs(map.getBoundingClientRect().width - map.width / Math.min(3, devicePixelRatio)) <= 1;
           }"""
    )
    watched.page.evaluate("document.body.style.marginRight = ''")


def test_a_model_with_a_given_core_has_no_command_and_large_numbers_stay(
    browser: Any, tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recording(14)
    ids = [517399188 + number for number in range(14)]
    numbered = ww.Recording(
        given.images, given.responses, test=given.test, neurons=pd.DataFrame({"specimen": ids}, given.neurons.index)
    )
    moved = ww.transferred(ww.load_model(fitted("factorized", given, tmp_path / "source")), "frozen")
    runs.fit_run(moved, numbered, tmp_path / "moved")
    images = np.full((1, 1, HEIGHT, WIDTH), 100.0)
    np.savez(tmp_path / "moved" / "most_exciting.npz", images=images, neurons=["cell 3"])
    np.savez(tmp_path / "moved" / "fields.npz", fields=np.ones((1, 1, 5, 5)), corners=[[3, 4]], neurons=["cell 3"])
    monkeypatch.setattr(parts, "MOST_FIELDS", 5)  # more neurons than the report would find the fields of
    watched = Watched(browser, write_report(explore_runs([tmp_path / "moved"]), tmp_path / "report.html"))
    assert watched.page.locator("#copy").is_hidden()
    assert "No command is shown: the core came from another model" in watched.page.inner_text("#command-note")
    watched.page.fill("#search", "cell 3")
    watched.page.keyboard.press("Enter")
    assert "517399191" in watched.page.locator("#table [data-place='0']").inner_text().split("\n")
    exciting = watched.page.locator("#figures figure", has_text="Most exciting image").locator("figcaption")
    assert "on a scale of its own; its mean is grey" in exciting.inner_text()
    linearised = watched.page.locator("#figures figure", has_text="Linearised field").locator("figcaption")
    assert linearised.inner_text().startswith("Red: brighter excites it")
    watched.page.fill("#search", "cell 4")
    watched.page.keyboard.press("Enter")
    assert exciting.inner_text() == linearised.inner_text() == "Not made for this neuron."
    watched.end()
