"""DALI on a CUDA device; skipped without one, or without DALI."""

from __future__ import annotations

import pytest
import torch

from dali_support import PATCHES, make_reader, with_chance
from decathlete.loading.dali import DaliLoader
from decathlete.training.run import train
from training_support import make_store, tiny_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
pytest.importorskip("nvidia.dali")


@pytest.mark.parametrize("patch_size", PATCHES)
def test_batches_made_on_cuda_equal_those_made_on_the_cpu(patch_size):
    reader = make_reader(patch_size, with_chance(len(patch_size), 0.6))
    here = DaliLoader(reader, n_channels=3, device=torch.device("cpu"))
    there = DaliLoader(reader, n_channels=3, device=torch.device("cuda", 0))
    for expected, found in zip(here, there, strict=True):
        assert found.plain_PCZYX.device == found.plain_label_PZYX.device == torch.device("cuda", 0)
        torch.testing.assert_close(found.plain_PCZYX.cpu(), expected.plain_PCZYX, atol=1e-3, rtol=0)
        assert (found.plain_label_PZYX.cpu() == expected.plain_label_PZYX).float().mean() > 0.99


def test_a_training_on_cuda_is_fed(tmp_path):
    result = train(make_store(tmp_path / "store"), 0, tmp_path / "run", tiny_config(loader="dali", device="cuda"))
    assert result.steps == 8
