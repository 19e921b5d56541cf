"""The pages of Figure 5: units of VGG-19, by readout, number of images and number of types."""

from pathlib import Path

import numpy as np
import pandas as pd

from whatwhere.experiments.grid import GridResults
from whatwhere.experiments.paper_numbers import FIGURE_5B_GLM, FIGURE_5E, FIGURE_5E_IMAGES, figure_5b
from whatwhere.report import figure5 as five
from whatwhere.report.page import Section
from whatwhere.report.reproduction_parts import Reproduction, calibrations, listed

_FOUND = (
    "Right type: the share of units whose largest feature weight is their type's feature map. Places are compared after"
    " a common offset of each feature map is removed, which no fit can know; pixels."
)


def report_fig5(results: GridResults) -> Reproduction:
    """Units of VGG-19: FEV beside the paper's curves, types and places found."""
    rows = [
        {
            "model": five.label(model, n_neurons),
            "images": point.n_images,
            "paper": figure_5b(model, n_neurons, point.n_images),
            "measured": point.median,
            "lowest": point.low,
            "highest": point.high,
            "seeds": point.n_seeds,
        }
        for model, n_neurons in five.curves(results)
        for point in results.curve(model, n_neurons)
    ]
    beside = pd.DataFrame(rows)
    beside["paper"] = beside["paper"].astype(float)
    beside["difference"] = beside["measured"] - beside["paper"]
    shown = five.shown_point(results)
    caption = "Medians over seeds, bars the range, clipped at 0."
    if shown is not None:
        caption = (
            "A: a test image, and the middle of what each unit sees. B: medians over seeds, bars the range, clipped at"
            " 0. C: feature weights of all units; D: masks of a unit of the first types, circles where it is. Both of:"
            f" {five.NAMES[shown.model]}, {shown.n_neurons:,} neurons, {shown.n_images:,} images, seed {shown.seed}."
        )
    text = (
        "Units of VGG-19, each of one feature map, their places unknown, shown crops of photographs (section 5.1):"
        f" mean rate 0.1, noise N(r, sqrt r). {_stimuli(results)}",
        f"The paper's GLM saturates near {FIGURE_5B_GLM}. The posterior readout is not in the paper.",
    )
    return Reproduction(
        "Figure 5: a nonlinear feature space, learned",
        {"figure5": (five.nonlinear_population(results), caption), **calibrations(results)},
        [Section("What is shown", text)],
        [
            Section("The paper's numbers and those measured", table=beside),
            Section("What and where was found", [_FOUND], table=_found(results)),
            Section("What differs from the paper", items=_differs_fig5(results)),
        ],
    )


def report_fig5e(results: GridResults) -> Reproduction:
    """FEV by the number of types, beside the paper's."""
    rows = []
    done = results.done.astype({"n_types": int})
    for model, n_types, n_images in done[["model", "n_types", "n_images"]].drop_duplicates().itertuples(index=False):
        some = done[(done["model"] == model) & (done["n_types"] == n_types) & (done["n_images"] == n_images)]
        paper = FIGURE_5E.get(model, {}).get(n_types) if n_images == FIGURE_5E_IMAGES else None
        values = some["fev_clipped"]
        rows.append(
            {
                "model": five.NAMES[model],
                "types": n_types,
                "images": n_images,
                "paper": np.nan if paper is None else paper,
                "measured": values.median(),
                "lowest": values.min(),
                "highest": values.max(),
                "seeds": len(values),
            }
        )
    text = (
        "Units of more and more feature maps of VGG-19, 64 of each, and as many maps in the models' last layer"
        f" (section 5.1). {_stimuli(results)}",
        "The paper: the fully connected readout falls with the number of types, the others do not.",
    )
    caption = "Medians over seeds, bars the range, clipped at 0."
    return Reproduction(
        "Figure 5E: populations of many types",
        {"figure5e": (five.numbers_of_types(results), caption)},
        [Section("What is shown", text)],
        [
            Section("The paper's numbers and those measured", table=pd.DataFrame(rows)),
            Section("What and where was found", [_FOUND], table=_found(results)),
            Section("What differs from the paper", items=_differs_fig5(results)),
        ],
    )


def _found(results: GridResults) -> pd.DataFrame:
    columns = {
        "model": "model",
        "n_neurons": "neurons",
        "n_images": "images",
        "seed": "seed",
        "type_accuracy": "right type",
        "location_error": "median location error",
        "hit_rate": "within 1 pixel",
        "steps": "steps",
        "fev": "FEV",
    }
    fitted = results.done.reindex(columns=list(columns)).dropna(subset=["steps"]).astype({"steps": int})
    return fitted.rename(columns=columns)


def _stimuli(results: GridResults) -> str:
    options = results.asked
    shown = "dead leaves in place of photographs" if options["photographs"] is None else "crops of photographs"
    weights = {"hub": "the PyTorch hub's weights", "seeded": "a stand-in for VGG-19, from a fixed seed"}
    return f"Here: {weights.get(options['weights'], Path(options['weights']).name)}, {shown}."


def _other_stimuli(photographs: str | None) -> str:
    if photographs is None:
        return "Dead leaves, not ImageNet's photographs."
    return "Photographs are not ImageNet's; those that training images are cropped from show in no test image."


def _differs_fig5(results: GridResults) -> list[str]:
    options = results.asked
    first, second = options["n_maps"]
    strengths = "the preset's, several tried on the validation part where it has several"
    strengths = strengths if options["search"] else "one set for each model and number of images"
    return [
        f"Seeds: {listed(results, 'seed')}. Test images: {options['n_test_images']:,}.",
        _other_stimuli(options["photographs"]),
        f"The first two layers have {first} and {second} maps; the paper's 32 and 64.",
        f"Strengths of the penalties: {strengths}. Responses are divided by their standard deviation for the fit.",
        "Networks have an offset and a ReLU for each neuron; the GLM's offset is inside its ReLU.",
        "Where neurons look at first, and which share a feature map, is found from a fixed bank of local features"
        " (factorised, posterior) or from averages that are decorrelated (the others); the paper takes the averages.",
        "Feature weights of factorised and posterior readouts start from types and keep their proportions for some"
        " hundred steps; the fully connected readout has an L2 penalty alone.",
        "The factorised readout's feature weights have norm 1, its L1 penalties are taken by proximal steps, those of"
        " masks about as strong as chance correlations ask; the paper's are 0.003 and 0.003 to 0.3 in its own units.",
    ]
