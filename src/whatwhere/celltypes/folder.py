"""The types of a run: found, set against refits, and kept in a folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whatwhere.catalogue import load_model
from whatwhere.celltypes.barcodes import check_barcodes, maps_to_measure, model_barcodes, remembered_maps
from whatwhere.celltypes.finding import NO_TYPE, CellTypes, find_types, more_could_be_tried
from whatwhere.celltypes.options import TypeOptions
from whatwhere.celltypes.refits import Observe, fit_refits, fitted_recording, plan_refits, refit_stability
from whatwhere.celltypes.stability import Stability
from whatwhere.errors import OptionError, RunError
from whatwhere.estimators import CNN
from whatwhere.files import make_folder
from whatwhere.recording import Recording
from whatwhere.runs import TYPES_FILE, TYPES_TABLE
from whatwhere.storage import write_text


@dataclass(frozen=True, eq=False)
class RunTypes:
    """The types of a run's neurons.

    neurons: their identifiers; folder: what was written to; stability: None without refits; notes: what was worth
    saying; interrupted: Ctrl-C ended the refits, and nothing was written but those that are done.
    """

    types: CellTypes
    neurons: list[str]
    folder: Path
    stability: Stability | None = None
    notes: tuple[str, ...] = ()
    interrupted: bool = False

    def table(self) -> pd.DataFrame:
        """One row a neuron: `neuron`, `type` (empty for none), `status`, `confidence`, and its places on both maps."""
        types = self.types
        nowhere = np.full((len(self.neurons), 2), np.nan)
        maps = {"pca": types.pca, "tsne": nowhere if types.tsne is None else types.tsne}
        labels = pd.array(np.where(types.labels == NO_TYPE, 0, types.labels), dtype="Int64")
        labels[types.labels == NO_TYPE] = pd.NA
        return pd.DataFrame(
            {
                "neuron": self.neurons,
                "type": labels,
                "status": types.status,
                "confidence": types.confidence,
                **{f"{name}_{axis + 1}": places[:, axis] for name, places in maps.items() for axis in range(2)},
            }
        )

    def summary(self) -> dict[str, Any]:
        """Plain values: what was asked for, how many types of how many neurons, the BIC, and the stability."""
        types = self.types
        states, counts = np.unique(types.status, return_counts=True)
        found: dict[str, Any] = {
            "options": asdict(types.options),
            "n_types": types.n_types,
            "neurons": {str(state): int(count) for state, count in zip(states, counts, strict=True)},
            "types": [
                {"type": number, "neurons": int(count), "confidence": float(confidence)}
                for number, (count, confidence) in enumerate(zip(types.counts, mean_confidence(types), strict=True))
            ],
            "bic": _plain(types.bic),
            "stability": None,
        }
        if self.stability is not None:
            refits, curve = _plain(self.stability.refits), _plain(self.stability.curve)
            found["stability"] = {
                "n_types": self.stability.n_types,
                "ari": self.stability.best_ari,
                "left_out": list(self.stability.left_out),
                "curve": curve,
                "refits": refits,
            }
        return found


def mean_confidence(types: CellTypes) -> np.ndarray:
    """Of each type's neurons, (n_types,)."""
    return np.array([types.confidence[types.labels == number].mean() for number in range(types.n_types)])


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def types_of_run(
    run: str | Path,
    folder: str | Path | None = None,
    recording: Recording | None = None,
    *,
    options: TypeOptions | None = None,
    refits: int = 0,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    observe: Observe = lambda label: None,
) -> RunTypes:
    """Finds the types of a fitted model's neurons and writes `types.csv` and `types.json`; see `find_types`.

    - run: a run's folder or model file; folder: where to write, the run's own if None
    - recording: the one that the model was fitted to. Its images measure the feature maps for the metric "signal" and
      for cores without batch normalisation; refits are fitted to it
    - refits: how many, with the seeds that follow the run's, each kept in `folder/seed-<s>`: those that are there
      already, from an earlier call or a comparison with several seeds, are read, and one that was interrupted or killed
      goes on; device, threads: for them
    - observe: from a refit's label to what is told how it goes

    Raises `InputError` for a model without barcodes, or another recording (with refits or without), `RunError` where
    the folder holds types already and `overwrite` is not given, `OptionError` for refits without a recording.
    """
    options = options or TypeOptions()
    model = load_model(run)
    network = check_barcodes(model)
    assert isinstance(model, CNN)
    place = _checked(Path(run), folder, overwrite)
    if refits and recording is None:
        raise OptionError("refits need the recording that the run was fitted to: give it (--recording).")
    model.set_params(device=device, threads=threads)
    plan = None
    if recording is not None and refits:
        plan = plan_refits(model, recording, place, refits)
    elif recording is not None:
        fitted_recording(model, recording)  # raises for another one
    elif options.metric != "signal":
        remembered_maps(network.core)  # raises where a recording is needed
    measured = maps_to_measure(model, recording, options.metric)
    found = find_types(model_barcodes(model, measured, metric=options.metric), options)
    stability, notes = None, list(_notes(found))
    if plan is not None:
        assert recording is not None
        make_folder(place)
        done = fit_refits(plan, observe)
        notes += [f"{label}: {note}" for label, of in done.notes.items() for note in of]
        if done.interrupted:
            return RunTypes(found, model.neurons_, place, notes=tuple(notes), interrupted=True)
        stability = refit_stability(model, found, recording, plan)
        notes += _stability_notes(found, stability)
    result = RunTypes(found, model.neurons_, place, stability, tuple(notes))
    _write(result)
    return result


def _checked(run: Path, folder: str | Path | None, overwrite: bool) -> Path:
    place = (run if run.is_dir() else run.parent) if folder is None else Path(folder)
    if place.exists() and not place.is_dir():
        raise RunError(f"{place} is a file: choose a folder for the types.")
    there = [name for name in (TYPES_FILE, TYPES_TABLE) if (place / name).exists()]  # the table may be of others
    if there and not overwrite:
        raise RunError(
            f"{place} holds types already, {there[0]}: use --overwrite to replace them (refits stay), or another"
            " folder."
        )
    return place


def _notes(found: CellTypes) -> list[str]:
    notes = []
    for status, why in (("silent", "without feature weights"), ("noise", "in no cluster")):
        count = int((found.status == status).sum())
        if count:
            notes.append(f"{count:,} of {len(found.labels):,} neurons have no type: {why}")
    asked = found.options.n_types
    if asked is not None and found.n_types < asked:
        notes.append(f"of {asked} types asked for, {found.n_types} hold a neuron")
    if more_could_be_tried(found):
        notes.append(
            f"the BIC is lowest at {found.options.max_types} types, the most that were tried: try more (--max-types)"
        )
    return notes


def _stability_notes(found: CellTypes, stability: Stability) -> list[str]:
    notes = [
        f"the refit with seed {seed} is left out: none of its neurons has feature weights"
        for seed in stability.left_out
    ]
    if stability.n_types is None and found.options.method == "gmm":
        notes.append(
            "fits cannot be compared by number of types: that takes six neurons with feature weights in every fit, and"
            " in each fit a neuron in every type"
        )
    return notes


def _write(result: RunTypes) -> None:
    folder = result.folder
    make_folder(folder)
    write_text(folder / TYPES_TABLE, result.table().to_csv(index=False))
    write_text(folder / TYPES_FILE, json.dumps(result.summary(), indent=1, allow_nan=False) + "\n")
