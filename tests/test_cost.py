"""What a fit is said to need: memory from its sizes, time from its steps."""

import time
from types import SimpleNamespace

import pytest
import torch

from whatwhere import cost, local_features, place_evidence
from whatwhere.config import CoreOptions, ModelOptions, ReadoutOptions, TrainingOptions
from whatwhere.cost import estimate_memory, make_plan
from whatwhere.local_features import local_memory
from whatwhere.model import Model, Shapes
from whatwhere.place_evidence import location_memory
from whatwhere.training import Trainer, TrainingData


def data(n_images: int = 60) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    images, responses = torch.randn(n_images + 20, 1, 12, 17, generator=generator), torch.ones(n_images + 20, 6)
    return TrainingData(images[20:], responses[20:], images[:20], responses[:20])


def model(**training: object) -> Model:
    options = ModelOptions(
        core=CoreOptions(kernel_sizes=(5,), n_maps=3, padding="valid"),
        training=TrainingOptions(**training),  # type: ignore[arg-type]
    )
    return Model("factorized", options, Shapes(n_channels=1, height=12, width=17, n_neurons=6))


def parameters(fitted: Model) -> torch.Tensor:
    return torch.cat([tensor.flatten().double() for tensor in fitted.state_dict().values()])


def test_the_plan_counts_images_parameters_candidates_and_steps() -> None:
    fitted, some = model(max_steps=1000, patience=3, n_rates=2, check_every=5), data(60)
    plan = make_plan(fitted, some, 4, ("a note",))
    assert (plan.n_images, plan.n_validation, plan.n_candidates, plan.notes) == (60, 20, 4, ("a note",))
    kernels, shifts, masks, weights, biases = 3 * 5 * 5, 3, 6 * 8 * 13, 6 * 3, 6
    assert plan.n_parameters == kernels + shifts + masks + weights + biases
    assert plan.least_seconds == pytest.approx(plan.seconds_per_step * 5 * 3 * 2 * 4)
    assert plan.most_seconds == pytest.approx(plan.seconds_per_step * 1000 * 4)
    later = make_plan(
        model(max_steps=1000, patience=3, n_rates=2, check_every=5, patience_from=100, refit=True), some, 1
    )
    assert later.least_seconds == pytest.approx(later.seconds_per_step * (100 + 5 * 3 * 2))
    assert later.most_seconds == pytest.approx(later.seconds_per_step * 2 * 1000)
    few = make_plan(model(max_steps=7), some, 1)
    assert few.least_seconds == few.most_seconds == pytest.approx(few.seconds_per_step * 7)


def test_planning_changes_nothing() -> None:
    fitted, some = model(), data()
    before = parameters(fitted)
    make_plan(fitted, some, 1)
    assert torch.equal(parameters(fitted), before)
    assert all(parameter.grad is None for parameter in fitted.parameters())


def test_memory_is_data_parameters_and_activations() -> None:
    some = data(60)
    data_bytes = 4 * 80 * (12 * 17 + 6)
    small, large = (estimate_memory(model(batch_size=size), some) for size in (10, 50))
    per_image = (large - small) / 40
    fixed = small - 10 * per_image
    n_parameters = sum(parameter.numel() for parameter in model().parameters())
    assert fixed == pytest.approx(data_bytes + 7 * 4 * n_parameters)
    maps = 4 * 3 * 8 * 13
    assert maps <= per_image <= 10 * maps
    assert estimate_memory(model(batch_size=500), some) == estimate_memory(model(batch_size=60), some)


@pytest.mark.gpu
def test_memory_is_what_a_gpu_takes() -> None:
    some, fitted = data(2000), model(batch_size=1024, max_steps=1)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    on_gpu = type(some)(*(x.cuda() if isinstance(x, torch.Tensor) else x for x in vars(some).values()))
    run = Trainer(fitted.cuda(), on_gpu, seed=0)
    run._look()
    for _ in range(3):
        run.step()
    taken = torch.cuda.max_memory_allocated() - before
    assert 0.4 < estimate_memory(fitted, on_gpu) / taken < 2.5


def test_the_seconds_are_those_of_the_steps_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is read before each step and after all but the first, which warms up."""
    clock = iter([0.0, 200.0, 203.0, 300.0, 305.0])
    monkeypatch.setattr("whatwhere.cost.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    fitted = model(check_every=10, patience=4, n_rates=3, max_steps=1000)
    plan = make_plan(fitted, data(300), n_candidates=2)
    assert plan.seconds_per_step == 4.0
    assert plan.least_seconds == 4.0 * 120 * 2
    assert plan.most_seconds == 4.0 * 1000 * 2


def test_inferring_the_places_is_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    some = data(60)
    options = ModelOptions(
        core=CoreOptions(kernel_sizes=(5,), n_maps=3, padding="valid"),
        readout=ReadoutOptions(widths=(0.0, 1.0), locate_every=10),
    )
    fitted = Model("posterior", options, Shapes(n_channels=1, height=12, width=17, n_neurons=6))
    before = parameters(fitted)
    monkeypatch.setattr(cost, "settle", lambda *arguments: time.sleep(0.5))
    plan = make_plan(fitted, some, 1)
    assert plan.seconds_per_step > 0.05, "half a second over ten steps"
    assert torch.equal(parameters(fitted), before)
    monkeypatch.setattr(place_evidence, "_MOST_NUMBERS", 1)
    kept = location_memory(fitted, 600) - location_memory(fitted, 400)
    assert kept == 4 * 200 * 3 * 2 * 8 * 13, "the features of 200 images at both widths"
    monkeypatch.setattr(place_evidence, "_MOST_FEATURES", 0)
    assert location_memory(fitted, 6_000) == location_memory(fitted, 600)
    assert plan.memory >= location_memory(fitted, 60)


def test_a_start_from_local_features_is_in_the_plan() -> None:
    """Measured with 1,500 images of 3 x 44 x 44: 144 MiB for 50 neurons, 289 MiB for 1,000."""
    stated = [local_memory(3, (32, 32), n_neurons, 7) / 2**20 for n_neurons in (50, 1000, 100_000)]
    assert 120 < stated[0] < 220 < stated[1] < 450
    evidence = 3 * 100_000 * 1024 * 4 / 2**20
    products = 4 * local_features._MOST_PRODUCTS / 2**20  # of those that one pass over the images is for
    assert stated[2] < stated[1] + evidence + products, "neurons are taken in parts"
    some = data(60)
    for start in ("average", "features"):
        options = ModelOptions(core=CoreOptions(kernel_sizes=(5,), n_maps=1), readout=ReadoutOptions(start=start))
        shapes = Shapes(n_channels=1, height=12, width=17, n_neurons=6)
        memory = estimate_memory(Model("factorized", options, shapes), some)
        assert (memory > local_memory(1, (8, 13), 6, 7)) == (start == "features")
