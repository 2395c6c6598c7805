"""Each change of intensities does what it says, to each row by its own strength."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import gaussian_filter

from decathlete.augmentation.draws import RowContext
from decathlete.augmentation.transforms import TRANSFORMS, Patch

SIZES = [(12, 10, 14), (20, 17), (1, 9, 9)]


@pytest.fixture(params=SIZES, ids=str)
def rows(request):
    return torch.randn(3, *request.param, generator=torch.Generator().manual_seed(0)) * 2 + 1


def flat(rows):
    return rows.flatten(1)


def apply(name, rows, strength, *, in_plane=False, **settings):
    """Change each row by the transform, with its strength."""
    component = TRANSFORMS.resolve(name)
    transform = component.cls(component.settings(**settings), Patch(size=tuple(rows.shape[1:]), in_plane=in_plane))
    return transform(rows, torch.as_tensor(strength), context_of(name, len(rows)))


def context_of(name, n_rows=1):
    return RowContext(seed=0, transform=name, step=0, samples=tuple(range(n_rows)), channels=(0,) * n_rows)


def test_brightness(rows):
    changed = apply("brightness", rows, [0.5, 1.0, 2.0])
    torch.testing.assert_close(changed[0], rows[0] * 0.5)
    torch.testing.assert_close(changed[2], rows[2] * 2)


def test_noise_has_the_standard_deviation_asked_for():
    rows = torch.zeros(3, 40, 40, 20)
    changed = apply("noise", rows, [0.0, 0.1, 0.3])
    torch.testing.assert_close(flat(changed).std(1), torch.tensor([0.0, 0.1, 0.3]), atol=3e-3, rtol=0)


def test_contrast_keeps_mean_and_range(rows):
    weaker = apply("contrast", rows, [0.65] * 3)
    torch.testing.assert_close(flat(weaker).mean(1), flat(rows).mean(1))
    torch.testing.assert_close(flat(weaker).std(1), 0.65 * flat(rows).std(1))
    stronger = apply("contrast", rows, [1.5] * 3)
    torch.testing.assert_close(flat(stronger).amax(1), flat(rows).amax(1))
    torch.testing.assert_close(flat(stronger).amin(1), flat(rows).amin(1))
    assert (flat(stronger).std(1) > 1.1 * flat(rows).std(1)).all()


@pytest.mark.parametrize("exponent", [0.7, 1.5])
def test_gamma_keeps_order_mean_and_deviation(rows, exponent):
    changed = apply("gamma", rows, [exponent] * 3)
    torch.testing.assert_close(flat(changed).mean(1), flat(rows).mean(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(flat(changed).std(1), flat(rows).std(1), atol=1e-4, rtol=1e-4)
    assert torch.equal(flat(changed)[0].argsort(), flat(rows)[0].argsort())
    above_mean = (flat(changed).amax(1) > flat(rows).amax(1)).tolist()
    assert all(above_mean) if exponent > 1 else not any(above_mean)


def test_gamma_of_one_changes_nothing_and_inverted_is_gamma_of_the_negative(rows):
    torch.testing.assert_close(apply("gamma", rows, [1.0] * 3), rows, atol=1e-5, rtol=1e-5)
    exponent = [0.7, 1.0, 1.5]
    inverted = apply("gamma_inverted", rows, exponent)
    torch.testing.assert_close(inverted, -apply("gamma", -rows, exponent))
    assert not torch.allclose(inverted[2], apply("gamma", rows, exponent)[2])


def test_blur_equals_scipy(rows):
    sigma = torch.tensor([0.5, 0.8, 1.0])
    changed = apply("blur", rows, sigma)
    for row, result, s in zip(rows, changed, sigma.tolist(), strict=True):
        expected = gaussian_filter(row.double().numpy(), s, mode="nearest", radius=3)
        torch.testing.assert_close(result, torch.tensor(expected).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(12, 10, 14), (21, 17)], ids=str)
@pytest.mark.parametrize("scale", [0.5, 0.61, 0.83, 1.0])
def test_low_resolution_equals_interpolating_down_and_up(size, scale):
    rows = torch.randn(2, *size, generator=torch.Generator().manual_seed(1))
    coarse = [max(round(n * torch.tensor(scale).item()), 1) for n in size]
    mode = "trilinear" if len(size) == 3 else "bilinear"
    expected = F.interpolate(F.interpolate(rows[None], size=coarse, mode="nearest-exact"), size=size, mode=mode)[0]
    changed = apply("low_resolution", rows, [scale, 0.5])
    torch.testing.assert_close(changed[0], expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(12, 10, 14), (5, 9, 9)], ids=str)
def test_low_resolution_spares_the_first_axis_of_a_patch_changed_in_its_plane(size):
    rows = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    changed = apply("low_resolution", rows, [0.5] * 3, in_plane=True)
    planes = [apply("low_resolution", rows[:, i], [0.5] * 3) for i in range(size[0])]
    torch.testing.assert_close(changed, torch.stack(planes, dim=1))


@pytest.mark.parametrize("name", ["contrast", "gamma", "gamma_inverted", "low_resolution", "blur"])
def test_a_constant_patch_stays_constant(name):
    rows = torch.full((2, 6, 7, 8), 3.0)
    torch.testing.assert_close(apply(name, rows, [0.7, 0.9]), rows)


def test_the_kernel_of_a_blur_reaches_as_far_as_the_settings_allow():
    rows = torch.zeros(1, 21)
    rows[0, 10] = 1
    reach = [(apply("blur", rows, [2.0], between=(0.0, sigma)) > 0).sum().item() // 2 for sigma in (0.0, 1.0, 2.0)]
    assert reach == [0, 3, 6]


def test_noise_is_another_in_each_channel_sample_step_and_seed():
    rows = torch.zeros(1, 500)

    def noise(**changes):
        place = {"seed": 0, "transform": "noise", "step": 0, "samples": (0,), "channels": (0,)} | changes
        return RowContext(**place).normal_like(rows)[0]

    others = [noise(seed=1), noise(step=1), noise(samples=(1,)), noise(channels=(1,)), noise(transform="other")]
    fields = torch.stack([noise(), *others, RowContext.normal_like(context_of("noise"), rows, "second")[0]])
    assert torch.equal(fields[0], noise())
    assert (torch.corrcoef(fields) - torch.eye(len(fields))).abs().max() < 0.2
