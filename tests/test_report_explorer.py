"""The report as a file: what is in it is what was found, nothing in it can become code, and its colours can be read."""

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import whatwhere as ww
from whatwhere import runs
from whatwhere.catalogue import make_model
from whatwhere.errors import InputError, RunError
from whatwhere.exploration import Cropped, explore_runs
from whatwhere.metrics import SCORES
from whatwhere.report.explorer import document, payload
from whatwhere.report.explorer.facts import score_labels
from whatwhere.report.explorer.packing import packed, sheets, signed_bytes, within_limits
from whatwhere.rows import spaced
from whatwhere.run_data import HeldResponses

SMALL = {
    "core": {"kernel_sizes": [5], "n_maps": 2},
    "training": {"batch_size": 20, "max_steps": 6, "check_every": 3},
}
HOSTILE = "<script>window.broken=1</script>{{STYLE}}&amp;"


def recording(names: list[str] | None = None, test: bool = True) -> ww.Recording:
    rng = np.random.default_rng(0)
    held = ww.HeldOut(rng.normal(size=(9, 12, 17)), rng.poisson(2, (27, 4)), np.repeat(np.arange(9), 3))
    neurons = pd.DataFrame(index=names or ["a", "b", "c", HOSTILE])
    images = rng.normal(size=(80, 12, 17)).astype(np.float32)
    return ww.Recording(images, rng.poisson(2, (80, 4)), test=held if test else None, neurons=neurons, name=HOSTILE)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    runs.fit_run(make_model("factorized", SMALL), recording(), folder)
    return folder


def data_of(html: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def unpacked(of: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(of["data"]), np.dtype(of["type"]).newbyteorder("<"))


def cells(spec: dict, n: int) -> np.ndarray:
    found = []
    for i in range(n):
        sheet = spec["sheets"][i // spec["perSheet"]]
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet.partition(",")[2]))))
        row, column = divmod(i % spec["perSheet"], spec["columns"])
        top, left = row * spec["height"], column * spec["width"]
        found.append(picture[top : top + spec["height"], left : left + spec["width"]])
    return np.array(found)


def test_the_page_holds_the_runs_numbers(run: Path) -> None:
    explored = explore_runs([run])
    found = data_of(document(explored))["runs"][0]
    kept = pd.read_csv(run / "scores.csv")
    assert found["neurons"] == list(kept["neuron"])
    np.testing.assert_allclose(unpacked(found["scores"]["correlation"]), kept["correlation"], rtol=1e-6)
    np.testing.assert_allclose(unpacked(found["locations"]).reshape(-1, 2), kept[["row", "column"]])
    metrics = json.loads((run / "metrics.json").read_text())
    assert found["summary"]["correlation"] == metrics["correlation"]
    masks, wanted = found["masks"], explored.runs[0].masks.values[:, 0]
    shown = (cells(masks, 4).astype(float) - 128) / 127 * unpacked(masks["limits"])[:, None, None]
    np.testing.assert_allclose(shown, wanted, atol=np.abs(wanted).max() / 250)
    held, kept_held = found["held"], explored.runs[0].held
    low, high = unpacked(held["low"])[:, None], unpacked(held["high"])[:, None]
    observed = low + (high - low) * unpacked(held["observed"]).reshape(4, 9) / 65534
    np.testing.assert_allclose(observed, kept_held.observed.T, atol=1e-3)


def shown(run: Path, **changes: Any) -> dict:
    """The page's data of the run, changed."""
    explored = explore_runs([run])
    return data_of(document(replace(explored, runs=(replace(explored.runs[0], **changes),))))["runs"][0]


def test_columns_that_are_not_shown_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {f"depth {number}": rng.normal(size=41) for number in range(7)}
    columns |= {"nickname": [f"cell {number}" for number in range(41)], "late": rng.normal(size=41)}
    given = ww.Recording(
        rng.normal(size=(60, 6, 7)), rng.normal(size=(60, 41)), neurons=pd.DataFrame(columns).set_index(np.arange(41))
    )
    runs.fit_run(ww.Ridge(strengths=[1.0]), given, tmp_path)
    found = data_of(document(explore_runs([tmp_path])))["runs"][0]
    assert [one["label"] for one in found["amounts"]] == [f"depth {number}" for number in range(7)]
    assert found["groups"] == []
    assert found["absent"][-2:] == [
        "of what the recording knows of its neurons, late: a run keeps the first 8 columns of numbers or text",
        "nickname of the recording's neurons: 41 different texts, at most 40 can be told apart",
    ]


def test_what_all_neurons_have_in_common_is_a_fact_and_no_column(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = pd.DataFrame({"area": ["V1"] * 4, "session": [5] * 4, "depth": [200, 200, 210, 230], "eye": list("lrlr")})
    given = ww.Recording(rng.normal(size=(60, 6, 7)), rng.normal(size=(60, 4)), neurons=columns)
    runs.fit_run(ww.Ridge(strengths=[1.0]), given, tmp_path)
    found = data_of(document(explore_runs([tmp_path])))
    assert found["recording"][-1] == ["All neurons", "area V1, session 5"]
    assert [group["label"] for group in found["runs"][0]["groups"]] == ["depth", "eye"]
    assert not any("found" in group for group in found["runs"][0]["groups"])
    pd.DataFrame({"neuron": range(4), "type": 0, "confidence": 1}).to_csv(tmp_path / "types.csv", index=False)
    first = data_of(document(explore_runs([tmp_path])))["runs"][0]["groups"][0]
    assert (first["label"], first["found"], first["names"]) == ("type", True, ["0"])


def test_every_score_has_its_words() -> None:
    words = score_labels()
    assert set(words) == set(SCORES)
    assert len({of["label"] for of in words.values()}) == len({of["meaning"] for of in words.values()}) == len(SCORES)


def test_most_exciting_images_are_scaled_about_their_mean(run: Path) -> None:
    images = np.full((4, 1, 12, 17), 100.0, np.float32)  # of a recording of bytes
    images[0, 0, 0, :3] = 25, 190, 85
    images[1] += np.float32(-7e4)  # the same everywhere
    images[2, 0, 5, 5] = np.nan
    images[3] = np.nan
    mean, limit = images[0].mean(dtype=float), np.abs(images[0] - images[0].mean(dtype=float)).max()
    found = shown(run, exciting=images)["exciting"]
    codes = cells(found, 4)
    np.testing.assert_array_equal(codes[0], np.rint(128 + 127 * (images[0, 0] - mean) / limit))
    assert codes[0, 0, 1] == 255
    assert codes[0, 0, 0] == 22  # 75 below the mean where 90 is the limit
    np.testing.assert_array_equal(codes[1], 128)
    np.testing.assert_array_equal(unpacked(found["made"]), [1, 1, 0, 0])


def test_fields_of_some_neurons_say_of_whom_they_are(run: Path) -> None:
    values = np.random.default_rng(2).normal(size=(4, 1, 6, 7)).astype(np.float32)
    made = np.array([True, False, True, False])
    some = Cropped(np.where(made[:, None, None, None], values, 0), np.zeros((4, 2), np.float32), made=made)
    found = shown(run, field=some)["field"]
    np.testing.assert_array_equal(unpacked(found["made"]), made)
    codes = cells(found, 4)
    np.testing.assert_array_equal(codes[0], np.rint(128 + 127 * values[0, 0] / np.abs(values[0]).max()))
    np.testing.assert_array_equal(codes[1], 128)
    assert shown(run, field=replace(some, made=None))["field"]["made"] is None
    assert payload.coarser(some, 10).made is made


def test_colours_of_most_exciting_images_stay(run: Path) -> None:
    images = np.random.default_rng(3).uniform(20, 220, (4, 3, 12, 17)).astype(np.float32)
    images[:, 0] += 30  # redder than grey
    codes = cells(shown(run, exciting=images)["exciting"], 4).astype(float)
    for image, code in zip(np.moveaxis(images, 1, 3), codes, strict=True):
        slope, offset = np.polyfit(image.ravel(), code.ravel(), 1)  # one scale for all channels
        np.testing.assert_allclose(code, slope * image + offset, atol=0.6)
        assert slope * image.mean() + offset == pytest.approx(128, abs=0.1)


def test_the_most_probable_pixel_is_of_the_image_as_it_is(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.fit_run(make_model("posterior", SMALL), recording(), tmp_path / "posterior")
    highest = ww.load_model(tmp_path / "posterior").location_posterior_.max((1, 2))
    explored = explore_runs([tmp_path / "posterior"])
    monkeypatch.setattr(payload, "MOST_BYTES", 200)
    masks = data_of(document(explored))["runs"][0]["masks"]
    assert masks["step"] > 1
    np.testing.assert_allclose(unpacked(masks["posterior"]["highest"]), highest, rtol=1e-6)


def test_pictures_are_of_the_points_they_stand_for() -> None:
    """Of 100 images 10 have a picture, whose one pixel is the image's number."""
    rows, pictured = 3 * np.arange(100), spaced(100, 10)
    values = rows[:, None].astype(np.float32)
    pixels = pictured.astype(np.uint8)[:, None, None, None]
    held = HeldResponses(rows, 300, values, values, np.full_like(values, np.nan), np.ones(100, int), pictured, pixels)
    for most, n_points, n_pictures in ((60, 20, 10), (1e6, 100, 10), (36, 20, 10)):
        found = payload._held(held, most)
        assert len(found["rows"]) == n_points
        assert (found["rows"][0], found["rows"][-1]) == (0, 297)
        assert len(found["pictured"]) == n_pictures
        shown = cells(found["thumbnails"], n_pictures).ravel()
        np.testing.assert_array_equal(shown, np.array(found["rows"])[found["pictured"]] // 3)
    none = payload._held(replace(held, pictured=pictured[:0], thumbnails=pixels[:0]), 60)
    assert (none["pictured"], none["thumbnails"]) == ([], None)


def test_large_whole_numbers_stay_as_they_are(run: Path) -> None:
    explored = explore_runs([run]).runs[0]
    many = np.arange(20.0) + 517399188
    amounts = payload._amounts(replace(explored, metadata=pd.DataFrame({"id": many, "depth": np.linspace(0, 1, 20)})))
    assert [(one["label"], one["values"]["type"], one["digits"]) for one in amounts] == [
        ("id", "f8", 0),
        ("depth", "f4", 2),
    ]
    np.testing.assert_array_equal(unpacked(amounts[0]["values"]), many)


def test_the_lowest_loss_of_a_long_fit_is_shown(run: Path) -> None:
    losses = np.full(1000, 2.0)
    losses[[0, 500]] = np.nan, 1.0  # the lowest between two rows that are evenly spaced
    table = {"step": np.arange(1000), "learning_rate": 0.1, "training_loss": 3.0, "validation_loss": losses}
    history = shown(run, history=pd.DataFrame(table))["history"]
    (fit,) = history["candidates"]
    assert len(fit["step"]) == len(fit["validation_loss"]) <= 401
    assert fit["step"] == sorted(fit["step"])
    found = dict(zip(fit["step"], fit["validation_loss"], strict=True))
    assert (found[0], found[500], found[999]) == (None, 1.0, 2.0)


def test_what_the_policy_names_is_what_is_there_and_all_else_is_forbidden(run: Path) -> None:
    html = document(explore_runs([run]))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag, kind in (("script", "script-src"), ("style", "style-src")):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert re.search(r"img-src data:;", policy)


def test_nothing_points_outside(run: Path) -> None:
    html = document(explore_runs([run]))
    assert re.findall(r'(?:src|href)="([^"]*)"', html) == ["#neuron"]
    assert "@import" not in html
    assert "url(" not in html
    assert not re.search(r"https?://", html)
    for word in ("fetch(", "XMLHttpRequest", "WebSocket", "sendBeacon", "innerHTML", "eval("):
        assert word not in html


def test_text_of_the_recording_is_only_ever_text(run: Path) -> None:
    html = document(explore_runs([run]))
    assert "<script>window" not in html
    assert html.count("<script") == 2
    assert data_of(html)["runs"][0]["neurons"][3] == HOSTILE
    assert "&lt;script&gt;window.broken=1&lt;/script&gt;{{STYLE}}&amp;amp;</h1>" in html


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    assert document(explore_runs([run])) == document(explore_runs([run]))


@pytest.mark.parametrize("shape", [(1, 5, 7), (7, 5, 3, 3), (5000, 31, 32)])
def test_every_picture_is_found_again_on_its_sheet(rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    pictures = rng.integers(0, 255, shape).astype(np.uint8)
    spec = sheets(pictures)
    some = min(7, len(pictures))
    np.testing.assert_array_equal(cells(spec, some), pictures[:some])
    assert max(spec["columns"] * spec["width"], spec["perSheet"] // spec["columns"] * spec["height"]) <= 4096
    assert spec["perSheet"] * len(spec["sheets"]) >= len(pictures)


def test_pictures_of_several_sheets_are_found_too() -> None:
    pictures = np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None], (5, 2500, 2100))
    spec = sheets(pictures)
    assert len(spec["sheets"]) == 5
    np.testing.assert_array_equal(cells(spec, 5), pictures)


def test_codes_are_within_half_a_step(rng: np.random.Generator) -> None:
    values = rng.normal(size=(6, 40))
    values[2] = 0
    codes, limits = signed_bytes(values)
    np.testing.assert_allclose(
        (codes.astype(float) - 128) / 127 * limits[:, None], values, atol=limits.max() / 254 + 1e-6
    )
    values[3, 4] = np.nan
    for most, kind, steps in ((10**6, "u2", 65534), (0, "u1", 254)):
        (found,), low, high, told = within_limits([values], most)
        assert told == kind
        span = np.where(high > low, high - low, 1)[:, None]
        again = low[:, None] + span * found / steps
        finite = np.isfinite(values)
        np.testing.assert_allclose(again[finite], values[finite], atol=float(span.max()) / steps)
        assert found[3, 4] == steps + 1
    assert unpacked(packed([1.5, np.nan]))[0] == 1.5


def test_a_report_from_python(run: Path, tmp_path: Path) -> None:
    model = ww.load_model(run)
    path = ww.report(model, recording(), tmp_path / "report.html")
    assert path == tmp_path / "report.html"
    found = data_of(path.read_text(encoding="utf-8"))["runs"][0]
    assert found["scores"] == data_of(document(explore_runs([run])))["runs"][0]["scores"]
    with pytest.raises(RunError, match=r"report\.html exists already: overwrite it \(--overwrite\), or choose another"):
        ww.report(model, recording(), path)
    ww.report({"one": model, "two": model}, recording(), path, overwrite=True)
    both = data_of(path.read_text(encoding="utf-8"))
    assert [one["name"] for one in both["runs"]] == ["one", "two"]
    assert {one["mean"] for one in both["differences"] if one["n"]} == {0.0}
    with pytest.raises(RunError, match=r"the folder .* does not exist: make it first"):
        ww.report(model, recording(), tmp_path / "no" / "report.html")
    with pytest.raises(RunError, match="is a folder: name a file in it"):
        ww.report(model, recording(), tmp_path)
    with pytest.raises(InputError, match="lacks 4 of the 4 neurons"):
        ww.report(model, recording(["x", "y", "z", "w"]), tmp_path / "other.html")


def test_the_command_line_writes_it(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    ww.save(recording(["a", "b", "c", "d"]), tmp_path / "session.npz")
    fit = ("fit", "session.npz", "--model", "ridge", "--set", "ridge.strengths=[1, 10]")
    code, out, err = command(tmp_path, *fit, "--out", "run")
    assert (code, err) == (0, "")
    assert re.search(r"report: run/report\.html \([\d.]+ KiB\), open it in a browser\n", out)
    found = data_of((tmp_path / "run" / "report.html").read_text(encoding="utf-8"))["runs"][0]
    assert found["command"] == "whatwhere fit session.npz --model ridge --set 'ridge.strengths=[1, 10]' --out run"
    assert found["commandNote"] == "The command that fitted this model:"

    code, out, err = command(tmp_path, *fit, "--out", "other", "--no-report")
    assert code == 0
    assert "report" not in out
    assert not (tmp_path / "other" / "report.html").exists()

    code, out, err = command(tmp_path, "report", "run", "other", "-o", "both.html")
    assert (code, err) == (0, "")
    assert out.startswith("report: both.html (")
    assert [one["name"] for one in data_of((tmp_path / "both.html").read_text())["runs"]] == ["run", "other"]
    assert command(tmp_path, "report", "run", "-o", "both.html")[0] == 4
    assert command(tmp_path, "report", "run", "-o", "both.html", "--overwrite")[0] == 0
    assert command(tmp_path, "report", "nothing")[0] == 4
    (tmp_path / "other" / "data.json").unlink()
    (tmp_path / "other" / "heldout.npz").unlink()
    assert command(tmp_path, "report", "other")[0] == 0
    assert data_of((tmp_path / "other" / "report.html").read_text())["runs"][0]["held"] is None
    assert command(tmp_path, "report", "other", "--recording", "session.npz")[0] == 0
    assert data_of((tmp_path / "other" / "report.html").read_text())["runs"][0]["held"]["nImages"] == 9


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_the_contrast_that_wcag_asks_for(run: Path) -> None:
    style = re.search(r"<style>(.*?)</style>", document(explore_runs([run])), re.DOTALL)[1]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})[;\s]", style))
    full = {
        name: f"#{''.join(2 * c for c in value[1:])}" if len(value) == 4 else value for name, value in colours.items()
    }
    pairs = [(text, ground) for text in ("ink", "soft", "accent") for ground in ("paper", "ground", "accent-ground")]
    for text, ground in [*pairs, ("warn", "warn-ground"), ("ink", "warn-ground")]:
        light, dark = sorted((luminance(full[text]), luminance(full[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
