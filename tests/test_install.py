"""What is installed: a machine without a GPU must not carry gigabytes of CUDA."""

import os
from importlib.metadata import distributions

import pytest
import torch


@pytest.mark.skipif(not os.environ.get("CI"), reason="a user may well have PyPI's default build; CI must not")
def test_no_cuda_packages_without_a_gpu() -> None:
    cuda = sorted(d.name for d in distributions() if (d.name or "").startswith(("nvidia-", "triton", "cuda-")))
    assert torch.cuda.is_available() or not cuda
