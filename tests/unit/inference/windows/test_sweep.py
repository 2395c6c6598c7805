"""The streaming sweep against a plain computation that accumulates everything with numpy."""

import weakref
from itertools import combinations

import numpy as np
import pytest
import torch
from torch import nn

from decathlete.core.sliding_window import SlidingWindow
from decathlete.inference.engines.torch import TorchEngine
from decathlete.inference.windows.flips import flip_sets, mean_over_flips
from decathlete.inference.windows.grid import importance
from decathlete.inference.windows.sweep import predict_logits, sweep, window_grid
from decathlete.networks.build import build_network
from factories import make_test_plan


def network(plan, seed=0):
    return build_network(plan.network, seed=seed).eval()


def plain(networks, image, plan, overlap, blend, mirror_axes=()):
    """All windows accumulated in float64, nothing streamed, no batches."""
    grid = window_grid(image.shape[1:], plan=plan, window=SlidingWindow(overlap=overlap, blend=blend))
    padded = np.pad(image, ((0, 0), *grid.padding))
    total = np.zeros((plan.labels.n_outputs, *grid.padded))
    weight = np.zeros(grid.padded)
    importance_ZYX = importance(grid.patch, blend).double().numpy()
    flips = [axes for n in range(len(mirror_axes) + 1) for axes in combinations(mirror_axes, n)]
    for box in grid.boxes:
        window = torch.from_numpy(padded[(slice(None), *box.slices)].copy())
        if plan.dims == 2:
            window = window[:, 0]
        outputs = []
        for net in networks:
            for axes in flips:
                dims = [a + 1 for a in axes]
                with torch.inference_mode():
                    outputs.append(net(window.flip(dims)[None])[0].flip(dims).double().numpy())
        logits = np.mean(outputs, axis=0).reshape(-1, *grid.patch)
        total[(slice(None), *box.slices)] += logits * importance_ZYX
        weight[box.slices] += importance_ZYX
    (z, _), (y, _), (x, _) = grid.padding
    d, h, w = image.shape[1:]
    return (total / weight)[:, z : z + d, y : y + h, x : x + w]


def image_of(shape, channels=1):
    return np.random.default_rng(0).normal(size=(channels, *shape)).astype(np.float32)


@pytest.mark.parametrize("shape", [(16, 16, 16), (41, 20, 17), (5, 30, 9), (1, 1, 1), (33, 7, 40)])
@pytest.mark.parametrize(("overlap", "blend"), [(0.5, "gaussian"), (0.0, "constant"), (0.7, "gaussian")])
def test_3d_equals_the_plain_computation(shape, overlap, blend):
    plan = make_test_plan(3)
    net = network(plan)
    image = image_of(shape)
    logits = predict_logits(net, image, plan=plan, window=SlidingWindow(overlap=overlap, blend=blend), precision="fp32")
    assert logits.shape == (3, *shape)
    assert logits.dtype == torch.float32
    np.testing.assert_allclose(logits.numpy(), plain([net], image, plan, overlap, blend), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 16, 16), (7, 20, 33), (12, 5, 9)])
def test_2d_goes_slice_by_slice(shape):
    plan = make_test_plan(2, n_channels=2)
    net = network(plan)
    image = image_of(shape, channels=2)
    logits = predict_logits(net, image, plan=plan, window=SlidingWindow(batch_size=5), precision="fp32")
    np.testing.assert_allclose(logits.numpy(), plain([net], image, plan, 0.5, "gaussian"), atol=2e-5)


def test_2d_slices_do_not_see_each_other():
    plan = make_test_plan(2)
    net = network(plan)
    image = image_of((6, 20, 20))
    whole = predict_logits(net, image, plan=plan, precision="fp32")
    alone = predict_logits(net, image[:, 3:4], plan=plan, precision="fp32")
    torch.testing.assert_close(whole[:, 3:4], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_batch_size_changes_nothing(batch_size):
    plan = make_test_plan(3)
    net = network(plan)
    image = image_of((30, 20, 20))
    one = predict_logits(net, image, plan=plan, window=SlidingWindow(batch_size=1), precision="fp32")
    many = predict_logits(net, image, plan=plan, window=SlidingWindow(batch_size=batch_size), precision="fp32")
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-4)


def test_folds_and_flips_are_averaged_as_logits():
    plan = make_test_plan(3)
    nets = [network(plan, seed) for seed in (1, 2)]
    image = image_of((20, 18, 12))
    engines = [TorchEngine(net, precision="fp32") for net in nets]
    slabs = sweep(engines, image, plan=plan, window=SlidingWindow(tta=True), mirror_axes=(0, 2))
    logits = torch.cat(list(slabs), dim=1)
    np.testing.assert_allclose(logits.numpy(), plain(nets, image, plan, 0.5, "gaussian", (0, 2)), atol=2e-5)


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([1.0, -2.0, 5.0]).view(1, 3, *(1,) * (x.ndim - 2)).expand(len(x), 3, *x.shape[2:])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_constant_network_gives_a_constant(dims):
    logits = predict_logits(
        Constant().eval(), image_of((20, 37, 9)), plan=make_test_plan(dims), window=SlidingWindow(overlap=0.3)
    )
    torch.testing.assert_close(logits, torch.tensor([1.0, -2, 5]).view(3, 1, 1, 1).expand(3, 20, 37, 9))


class Pointwise(nn.Module):
    """Looks at single voxels, so that flipping the image flips the logits."""

    def forward(self, x):
        return torch.cat([x, x**2, -x], dim=1)


def test_tta_leaves_a_flip_equivariant_network_alone():
    plan, image = make_test_plan(3), image_of((20, 20, 20))
    without = predict_logits(Pointwise().eval(), image, plan=plan, mirror_axes=(0, 1, 2))
    with_flips = predict_logits(
        Pointwise().eval(), image, plan=plan, window=SlidingWindow(tta=True), mirror_axes=(0, 1, 2)
    )
    torch.testing.assert_close(without, with_flips)
    torch.testing.assert_close(without[0], torch.from_numpy(image)[0])


def test_only_mirrored_axes_are_flipped():
    seen = []

    def predict(windows):
        seen.append(windows)
        return windows.clone()

    windows = torch.arange(24.0).view(1, 1, 2, 3, 4)
    torch.testing.assert_close(mean_over_flips([predict], windows, (0, 2)), windows)
    assert [tuple(w.flatten()[:1].int().tolist()) for w in seen] == [(0,), (12,), (3,), (15,)]
    assert flip_sets(()) == ((),)
    assert len(flip_sets((0, 1, 2))) == 8


def test_a_mean_over_flips_and_networks_keeps_two_sets_of_logits_at_most():
    given, alive, first = [], [], []

    def predict(windows):
        alive.append(sum(known() is not None for known in given))
        logits = windows + len(given)
        first.append(logits.data_ptr())
        given.append(weakref.ref(logits))
        return logits

    windows = torch.arange(24.0).view(1, 1, 2, 3, 4)
    mean = mean_over_flips([predict, predict], windows, (0, 2))
    torch.testing.assert_close(mean, windows + 3.5)
    assert mean.data_ptr() == first[0], "the logits are the caller's: no copy of them is needed"
    assert alive == [0] + [1] * 7


def test_slabs_are_contiguous_and_no_deeper_than_the_patch():
    plan = make_test_plan(3)
    net = network(plan)
    image = image_of((100, 16, 16))
    slabs = list(sweep([TorchEngine(net, precision="fp32")], image, plan=plan))
    assert sum(slab.shape[1] for slab in slabs) == 100
    assert max(slab.shape[1] for slab in slabs) <= 16
    assert len(slabs) > 10
    torch.testing.assert_close(torch.cat(slabs, 1), predict_logits(net, image, plan=plan, precision="fp32"))


def test_a_slab_comes_before_later_windows_are_computed():
    """What makes memory follow the slab: nothing runs ahead of what is asked for."""
    windows = []

    class Counting(Constant):
        def forward(self, x):
            windows.extend(x)
            return super().forward(x)

    slabs = sweep(
        [TorchEngine(Counting().eval())],
        image_of((200, 16, 16)),
        plan=make_test_plan(3),
        window=SlidingWindow(batch_size=1),
    )
    next(slabs)
    assert 0 < len(windows) <= 2


def test_repeats_bit_for_bit():
    plan, image = make_test_plan(3), image_of((40, 20, 20))
    net = network(plan)
    first, second = (
        predict_logits(net, image, plan=plan, window=SlidingWindow(tta=True), mirror_axes=(0, 1)) for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_sweep_with_flips_and_two_models_asks_the_device_nothing(dims):
    """On torch's meta device there are no numbers: asking for one, or mixing devices, fails."""
    plan = make_test_plan(dims, n_channels=2)
    with torch.device("meta"):
        networks = [build_network(plan.network).eval() for _ in range(2)]
    engines = [TorchEngine(net, precision="fp32") for net in networks]
    axes = tuple(range(dims))
    slabs = list(
        sweep(
            engines,
            image_of((41, 20, 17), 2),
            plan=plan,
            window=SlidingWindow(tta=True, batch_size=3),
            mirror_axes=axes,
        )
    )
    assert {slab.device.type for slab in slabs} == {"meta"}
    assert torch.cat(slabs, dim=1).shape == (3, 41, 20, 17)
