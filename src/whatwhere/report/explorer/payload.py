"""What the page draws from, as plain values for JSON: the names here are those that its script reads."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.exploration import Cropped, Explored, ExploredRun
from whatwhere.report.explorer.facts import facts_of, is_common, recording_facts, score_labels
from whatwhere.report.explorer.packing import packed, sheets, signed_bytes, unsigned_bytes, within_limits
from whatwhere.rows import spaced
from whatwhere.run_data import HeldResponses, shrunken

MOST_BYTES = 15 * 2**20
"""Of pictures and responses of all neurons and runs, before they are compressed and written as text."""
_SHARES = {"masks": 0.24, "field": 0.28, "held": 0.36, "exciting": 0.12}
_MOST_POINTS = 1000  # predicted against observed, of a neuron
_MOST_KINDS, _MOST_NUMBERS = 40, 12  # distinct texts and whole numbers of a column that stand for kinds
_MOST_WHOLE = 2**24  # whole numbers up to it are exact in four bytes
_MOST_CHECKS = 400  # of a curve of losses


def payload(explored: Explored) -> dict[str, Any]:
    """The whole page's data; pictures and responses are made coarser where there are very many neurons."""
    most = MOST_BYTES / sum(len(run.neurons) for run in explored.runs)  # bytes a neuron
    return {
        "title": explored.title,
        "scoreLabels": score_labels(),
        "recording": recording_facts(explored),
        "runs": [_run(run, most) for run in explored.runs],
        "differences": [vars(difference) for difference in explored.differences],
    }


def _run(run: ExploredRun, most: float) -> dict[str, Any]:
    budget = {name: share * most for name, share in _SHARES.items()}
    return {
        "name": run.name,
        "model": run.model,
        "neurons": run.neurons,
        "image": run.image_shape,
        "locations": None if run.locations is None else packed(run.locations),
        "scores": _scores(run),
        "summary": run.summary,
        "groups": _groups(run),
        "amounts": _amounts(run),
        "masks": _masks(run, budget["masks"]),
        "field": None if run.field is None else _signed(run.field, budget["field"]),
        "fieldName": run.field_name,
        "exciting": None if run.exciting is None else _exciting(run.exciting, budget["exciting"]),
        "barcode": None if run.feature_weights is None else _barcode(run.feature_weights),
        "kernels": None if run.kernels is None else _kernels(run.kernels),
        "kernelsAreFeatures": run.kernels_are_features,
        "held": None if run.held is None else _held(run.held, budget["held"]),
        "history": _history(run.history),
        "attention": run.attention,
        "absent": [*run.absent, *_of_too_many_kinds(run)],
        "facts": facts_of(run),
        "settings": run.settings,
        "command": run.command,
        "commandNote": "The command that fitted this model:" if run.command_is_exact else run.command_note,
    }


def _scores(run: ExploredRun) -> dict[str, Any]:
    if run.scores is None:
        return {}
    return {name: packed(run.scores[name].to_numpy(float)) for name in run.summary if name in run.scores}


def _groups(run: ExploredRun) -> list[dict[str, Any]]:
    """Columns that sort neurons into kinds: types found, and text or few whole numbers of the recording's own."""
    found = [] if run.types is None else [{**_group("type", run.types["type"]), "found": True}]
    has_types = run.types is not None
    for name, column in _own_columns(run.metadata):
        if is_common(column):
            continue
        label = f"{name} (recording)" if has_types and name == "type" else name
        if not _is_number(column) and column.nunique() <= _MOST_KINDS:
            found.append(_group(label, column))
        elif _is_number(column) and _has_few_numbers(column):
            found.append(
                _group(label, [f"{value:.0f}" if np.isfinite(value) else None for value in column.astype(float)])
            )
    return found


def _of_too_many_kinds(run: ExploredRun) -> list[str]:
    """What is not shown for this: texts that differ in nearly every neuron, such as identifiers."""
    columns = _own_columns(run.metadata)
    many = {name: column.nunique() for name, column in columns if not _is_number(column)}
    return [
        f"{name} of the recording's neurons: {n_kinds:,} different texts, at most {_MOST_KINDS} can be told apart"
        for name, n_kinds in many.items()
        if n_kinds > _MOST_KINDS
    ]


def _own_columns(metadata: pd.DataFrame) -> list[tuple[str, Any]]:
    """The recording's own columns but for those that are empty, and places, which the model's stand for."""
    columns = [(str(name), column) for name, column in metadata.items()]
    return [(name, column) for name, column in columns if name not in ("row", "column") and column.notna().any()]


def _is_number(column: Any) -> bool:
    return pd.api.types.is_numeric_dtype(column)


def _has_few_numbers(column: Any) -> bool:
    """Whether these are whole numbers, few enough to stand for kinds."""
    return column.nunique() <= _MOST_NUMBERS and bool((column.dropna() % 1 == 0).all())


def _group(label: str, column: Any) -> dict[str, Any]:
    texts = np.array(["none" if pd.isna(value) else str(value) for value in column], dtype=object).astype(str)
    names, index = np.unique(texts, return_inverse=True)
    return {"label": label, "names": names.tolist(), "index": packed(index, "u2")}


def _amounts(run: ExploredRun) -> list[dict[str, Any]]:
    """Columns of numbers that are no scores: uncertainty of the place, confidence of the type, the recording's own."""
    found: list[tuple[str, Any]] = []
    if run.posterior is not None:
        percent = f"{run.posterior.level:.0%}".replace("%", " %")
        found.append(("location uncertainty (nats)", run.posterior.entropy))
        found.append((f"{percent} region (pixels)", run.posterior.region_pixels))
    if run.types is not None and run.types["confidence"].notna().any():
        found.append(("type confidence", run.types["confidence"]))
    found += [
        (name, column)
        for name, column in _own_columns(run.metadata)
        if _is_number(column) and not _has_few_numbers(column) and not is_common(column)
    ]
    return [{"label": label, **_numbers(np.asarray(values, float))} for label, values in found]


def _numbers(values: np.ndarray) -> dict[str, Any]:
    """Values, those of a column that four bytes would change (large whole numbers) in eight; decimals to be shown."""
    finite = values[np.isfinite(values)]
    is_whole = bool((finite % 1 == 0).all())
    is_large = is_whole and bool((np.abs(finite) > _MOST_WHOLE).any())
    return {"values": packed(values, "f8" if is_large else "f4"), "digits": 0 if is_whole else 2}


def _signed(cropped: Cropped, most: float) -> dict[str, Any]:
    """A picture a neuron, its channels side by side, on a symmetric scale of its own."""
    cropped = coarser(cropped, most)
    codes, limits = signed_bytes(cropped.values)
    return {
        **sheets(_beside(codes)),
        "channels": codes.shape[1],
        "edges": packed(cropped.edges),
        "step": cropped.step,
        "limits": packed(limits),
        "signed": bool((cropped.values < 0).any()),
        "made": None if cropped.made is None else packed(cropped.made, "u1"),
    }


def coarser(cropped: Cropped, most: float) -> Cropped:
    """The same with at most so many values a neuron: means over squares of values."""
    n_values = math.prod(cropped.values.shape[1:])
    step = max(1, math.ceil(math.sqrt(n_values / max(most, 1.0))))
    if step == 1:
        return cropped
    return replace(cropped, values=shrunken(cropped.values, step), step=cropped.step * step)


def _beside(values: np.ndarray) -> np.ndarray:
    """(n, n_channels, h, w) to (n, h, n_channels * w)."""
    return np.moveaxis(values, 1, 2).reshape(len(values), values.shape[2], -1)


def _masks(run: ExploredRun, most: float) -> dict[str, Any] | None:
    """Masks as grey; with a posterior red is the mask, green the probability, blue the credible region."""
    if run.masks is None:
        return None
    if run.posterior is None:
        return {**_signed(run.masks, most), "posterior": None}
    masks = coarser(run.masks, most)
    probability = coarser(run.posterior.probability, most)
    region = coarser(Cropped(run.posterior.region.astype(np.float32), run.masks.edges), most).values > 0
    codes, limits = signed_bytes(masks.values[:, 0])
    chances, _ = unsigned_bytes(probability.values[:, 0])
    inside = np.where(region[:, 0], 255, 0).astype(np.uint8)
    return {
        **sheets(np.stack([codes, chances, inside], axis=3)),
        "channels": 1,
        "edges": packed(masks.edges),
        "step": masks.step,
        "limits": packed(limits),
        "signed": bool((masks.values < 0).any()),
        "posterior": {
            "level": run.posterior.level,
            "highest": packed(run.posterior.highest),
            "entropy": packed(run.posterior.entropy),
            "region": packed(run.posterior.region_pixels),
        },
    }


def _exciting(images: np.ndarray, most: float) -> dict[str, Any]:
    """Each neuron's image on a scale of its own, its mean grey; in colours where there are three channels.

    One scale for all channels, so that colours stay; `made` is 0 for an image that is NaN.
    """
    images = images if images.shape[1] in (1, 3) else images.mean(1, keepdims=True)
    step = max(1, math.ceil(math.sqrt(math.prod(images.shape[1:]) / max(most, 1.0))), -(-max(images.shape[2:]) // 64))
    made = np.isfinite(images).all((1, 2, 3))
    small = shrunken(np.where(made[:, None, None, None], images, 0.0).astype(float), step)
    codes, _ = signed_bytes(small - small.mean((1, 2, 3), keepdims=True))
    return {**_pictures(codes), "made": packed(made, "u1")}


def _pictures(codes: np.ndarray) -> dict[str, Any]:
    """(n, 1 or 3, h, w), uint8."""
    return sheets(codes[:, 0] if codes.shape[1] == 1 else np.moveaxis(codes, 1, 3))


def _barcode(weights: np.ndarray) -> dict[str, Any]:
    codes, limits = signed_bytes(weights)
    return {"n": weights.shape[1], "codes": packed(codes, "u1"), "limits": packed(limits)}


def _kernels(kernels: np.ndarray) -> dict[str, Any]:
    codes, limits = signed_bytes(kernels)
    return {**sheets(_beside(codes)), "n": len(kernels), "channels": kernels.shape[1], "limits": packed(limits)}


def _held(held: HeldResponses, most: float) -> dict[str, Any]:
    """Points of each neuron's scatter, an image a point; of more than there is room for, evenly spaced ones."""
    kept = _points(held, int(min(_MOST_POINTS, max(20, most / 3))))
    arrays = [held.predictions[kept].T, held.observed[kept].T]
    n_bytes = int(most * held.predictions.shape[1])
    codes, low, high, kind = within_limits(arrays, n_bytes * 2 // 3)
    errors, error_limits = unsigned_bytes(held.errors[kept].T)
    _, shown, pictured = np.intersect1d(held.pictured, kept, assume_unique=True, return_indices=True)
    return {
        "rows": held.rows[kept].tolist(),
        "nImages": held.n_images,
        "repeats": held.n_repeats[kept].tolist(),
        "predicted": packed(codes[0], kind),
        "observed": packed(codes[1], kind),
        "low": packed(low),
        "high": packed(high),
        "errors": packed(errors, "u1"),
        "errorLimits": packed(error_limits),
        "hasErrors": bool(np.isfinite(held.errors).any()),
        "pictured": pictured.tolist(),
        "thumbnails": _pictures(held.thumbnails[shown]) if len(shown) else None,
    }


def _points(held: HeldResponses, most: int) -> np.ndarray:
    """Positions of at most so many images: of more, evenly spaced ones, up to half of them of those with a picture."""
    if len(held.rows) <= most:
        return np.arange(len(held.rows))
    pictured = held.pictured[spaced(len(held.pictured), most // 2)]
    others = np.setdiff1d(np.arange(len(held.rows)), pictured)
    return np.union1d(pictured, others[spaced(len(others), most - len(pictured))])


def _history(history: pd.DataFrame) -> dict[str, Any] | None:
    """Losses by step for each candidate, or the validation loss of each strength."""
    if "step" in history and len(history):
        candidates = []
        for number, part in _by_candidate(history):
            some = part.iloc[_checks(part["validation_loss"])]
            columns = {name: _finite(some[name]) for name in ("step", "training_loss", "validation_loss")}
            candidates.append({"number": int(number), **columns, "rate": _finite(some["learning_rate"])})
        return {"kind": "steps", "candidates": candidates}
    if "validation_loss" in history and len(history):
        names = [name for name in history if name != "validation_loss"]
        rows = {name: _finite(history[name]) for name in names}
        return {"kind": "strengths", "names": names, "values": rows, "losses": _finite(history["validation_loss"])}
    return None


def _checks(losses: Any) -> np.ndarray:
    """Which rows of a long history are shown: evenly spaced ones, and that of the lowest loss."""
    values = np.asarray(losses, float)
    best = np.where(np.isfinite(values), values, np.inf).argmin()
    return np.union1d(spaced(len(values), _MOST_CHECKS), best)


def _by_candidate(history: pd.DataFrame) -> list[tuple[int, pd.DataFrame]]:
    if "candidate" not in history:
        return [(0, history)]
    return [(number, history[history["candidate"] == number]) for number in sorted(history["candidate"].unique())]


def _finite(column: Any) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in np.asarray(column, float)]
