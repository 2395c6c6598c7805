"""Each change of intensities does what it says, to each row by its own strength."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.ndimage import gaussian_filter

from decathlete.augmentation import intensity

SIZES = [(12, 10, 14), (20, 17), (1, 9, 9)]


@pytest.fixture(params=SIZES, ids=str)
def rows(request):
    return torch.randn(3, *request.param, generator=torch.Generator().manual_seed(0)) * 2 + 1


def flat(rows):
    return rows.flatten(1)


def test_brightness(rows):
    changed = intensity.multiply(rows, torch.tensor([0.5, 1.0, 2.0]))
    torch.testing.assert_close(changed[0], rows[0] * 0.5)
    torch.testing.assert_close(changed[2], rows[2] * 2)


def test_noise_has_the_standard_deviation_asked_for():
    rows = torch.zeros(3, 40, 40, 20)
    field = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    changed = intensity.add_noise(rows, torch.tensor([0.0, 0.1, 0.3]), field)
    torch.testing.assert_close(flat(changed).std(1), torch.tensor([0.0, 0.1, 0.3]), atol=3e-3, rtol=0)


def test_contrast_keeps_mean_and_range(rows):
    weaker = intensity.change_contrast(rows, torch.full((3,), 0.65))
    torch.testing.assert_close(flat(weaker).mean(1), flat(rows).mean(1))
    torch.testing.assert_close(flat(weaker).std(1), 0.65 * flat(rows).std(1))
    stronger = intensity.change_contrast(rows, torch.full((3,), 1.5))
    torch.testing.assert_close(flat(stronger).amax(1), flat(rows).amax(1))
    torch.testing.assert_close(flat(stronger).amin(1), flat(rows).amin(1))
    assert (flat(stronger).std(1) > 1.1 * flat(rows).std(1)).all()


@pytest.mark.parametrize("exponent", [0.7, 1.5])
def test_gamma_keeps_order_mean_and_deviation(rows, exponent):
    changed = intensity.change_gamma(rows, torch.full((3,), exponent))
    torch.testing.assert_close(flat(changed).mean(1), flat(rows).mean(1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(flat(changed).std(1), flat(rows).std(1), atol=1e-4, rtol=1e-4)
    assert torch.equal(flat(changed)[0].argsort(), flat(rows)[0].argsort())
    above_mean = (flat(changed).amax(1) > flat(rows).amax(1)).tolist()
    assert all(above_mean) if exponent > 1 else not any(above_mean)


def test_gamma_of_one_changes_nothing_and_inverted_is_gamma_of_the_negative(rows):
    torch.testing.assert_close(intensity.change_gamma(rows, torch.ones(3)), rows, atol=1e-5, rtol=1e-5)
    exponent = torch.tensor([0.7, 1.0, 1.5])
    torch.testing.assert_close(
        intensity.change_gamma_inverted(rows, exponent), -intensity.change_gamma(-rows, exponent)
    )
    assert not torch.allclose(
        intensity.change_gamma_inverted(rows, exponent)[2], intensity.change_gamma(rows, exponent)[2]
    )


def test_blur_equals_scipy(rows):
    sigma = torch.tensor([0.5, 0.8, 1.0])
    changed = intensity.blur(rows, sigma, max_sigma=1.0)
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
    changed = intensity.lower_resolution(rows, torch.tensor([scale, 0.5]))
    torch.testing.assert_close(changed[0], expected[0], atol=1e-5, rtol=0)


def test_low_resolution_can_spare_the_first_axis(rows):
    changed = intensity.lower_resolution(rows, torch.full((3,), 0.5), first_axis=1)
    each = [
        intensity.lower_resolution(rows[:, i : i + 1], torch.full((3,), 0.5), first_axis=1)
        for i in range(rows.shape[1])
    ]
    torch.testing.assert_close(changed, torch.cat(each, dim=1))


@pytest.mark.parametrize(
    "change",
    [
        intensity.change_contrast,
        intensity.change_gamma,
        intensity.change_gamma_inverted,
        intensity.lower_resolution,
        lambda rows, s: intensity.blur(rows, s, max_sigma=1.0),
    ],
)
def test_a_constant_patch_stays_constant(change):
    rows = torch.full((2, 6, 7, 8), 3.0)
    torch.testing.assert_close(change(rows, torch.tensor([0.7, 0.9])), rows)
