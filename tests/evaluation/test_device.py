"""Setting torch up, and placing networks."""

import copy
import ctypes
import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stages.lib.core import hardware
from stages.lib.core.errors import UserError
from stages.lib.evaluation import device
from tests import toys

CPU = torch.device("cpu")


@pytest.fixture
def settings(monkeypatch):
    """torch's global settings come back after the test."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "as before")
    mode = torch.get_deterministic_debug_mode()
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    allowed, convolutions, threads = matmul.allow_tf32, cudnn.allow_tf32, torch.get_num_threads()
    yield
    torch.set_deterministic_debug_mode(mode)
    matmul.allow_tf32, cudnn.allow_tf32 = allowed, convolutions
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(("given", "expected"), [(None, ":4096:8"), ("as before", "as before")])
def test_torch_is_set_up_and_setting_it_up_again_changes_nothing(monkeypatch, given, expected):
    if given is None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    for _ in range(2):
        assert device.configure("cpu", 1) == CPU
        assert torch.get_num_threads() == 1
        assert torch.get_deterministic_debug_mode() == 1
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == expected


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("there", [True, False])
def test_auto_is_cuda_where_there_is_one_and_cuda_without_one_is_refused(monkeypatch, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device.configure("auto", 1).type == ("cuda" if there else "cpu")
    with (
        nullcontext()
        if there
        else pytest.raises(UserError, match=r"compute\.device: cuda, but this torch has no CUDA")
    ):
        assert device.configure("cuda", 1).type == "cuda"


@pytest.mark.usefixtures("settings")
def test_a_c_library_without_mallopt_is_no_obstacle(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace())
    assert device.configure("cpu", 1) == CPU


@pytest.mark.parametrize(
    ("precision", "native", "expected"),
    [("auto", True, torch.bfloat16), ("auto", False, torch.float32),
     ("float32", True, torch.float32), ("bfloat16", False, torch.bfloat16)],
)  # fmt: skip
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_training_is_in_bfloat16_where_asked_or_native(
    monkeypatch, where, precision, native, expected
):
    def supported(including_emulation=True):
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    # On a GPU the processor's answer does not matter.
    monkeypatch.setattr(hardware, "native_bfloat16", lambda: native == (where == "cpu"))
    assert device.training_dtype(precision, torch.device(where)) == expected


@pytest.mark.parametrize(
    ("flags", "native"),
    [
        (["avx512_bf16", "avx512f"], True),
        (["amx_bf16"], True),
        (["asimd", "bf16"], True),
        (["avx512f", "avx2", "amx_tile"], False),
        ([], False),
    ],
)
def test_bfloat16_is_native_where_the_processor_has_it(monkeypatch, flags, native):
    monkeypatch.setattr(hardware, "_cpu", lambda: ("a processor", flags))
    assert hardware.native_bfloat16() is native


def test_a_placed_network_is_channels_last_and_otherwise_the_same():
    layers = [nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), nn.Conv1d(2, 3, 3), nn.Conv3d(2, 3, 3)]
    model = nn.ModuleList(layers)
    model[1].weight = model[0].weight
    model[0].bias.requires_grad_(False)
    model.register_buffer("grid", torch.ones(1, 2, 2, 2, 2, 2))
    model.register_buffer("ids", torch.ones(2, 3, 4, 5, dtype=torch.int64))
    before = copy.deepcopy(model)
    placed = device.place(model, CPU)
    assert placed is model
    assert toys.same_state(placed, before)
    assert placed[0].weight is placed[1].weight
    assert placed[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert [p.requires_grad for p in placed.parameters()][:3] == [True, False, True]


def test_each_purpose_has_a_random_stream_of_its_own():
    def draw(seed, purpose):
        return torch.rand(3, generator=device.generator(seed, purpose)).tolist()

    assert draw(0, "finetune") == draw(0, "finetune")
    # Names as stages give them: they differ by a letter somewhere.
    names = ("a", "b", "1/a", "", *(f"finetune finetune 0.{tenth}" for tenth in range(10)))
    drawn = {tuple(draw(seed, name)) for seed in (0, 1, 11) for name in names}
    assert len(drawn) == 3 * len(names)
