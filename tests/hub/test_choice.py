"""Which file of a repository is the model."""

from __future__ import annotations

import pytest

from ttcompress.errors import InputError
from ttcompress.hub import Address
from ttcompress.hub.choice import choose_file

CARD = ["README.md", "config.json", ".gitattributes", "vocab.txt"]
SHARDS = [f"model-0000{k}-of-00002.safetensors" for k in (1, 2)]
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("files", "path", "chosen"),
    [
        (["model.pt"], "", "model.pt"),
        (["model.pt", "model.safetensors"], "", "model.safetensors"),
        (["pytorch_model.bin", "training_args.bin", "optimizer.pt"], "", "pytorch_model.bin"),
        (["last.ckpt", "rng_state_0.pth", "scheduler.pt"], "", "last.ckpt"),
        ([*SHARDS, INDEX], "", INDEX),
        ([*SHARDS, INDEX], SHARDS[0], SHARDS[0]),
        (["a.safetensors", "b.safetensors"], "b.safetensors", "b.safetensors"),
        (["small/model.pt", "large/model.pt"], "small", "small/model.pt"),
        (["model.pt", "small/model.safetensors"], "", "model.pt"),
        (["optimizer.pt", "model.pt"], "optimizer.pt", "optimizer.pt"),
    ],
)
def test_the_file_is_found(files: list[str], path: str, chosen: str) -> None:
    assert choose_file(Address("user/name", path=path), [*CARD, *files]) == chosen


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        (
            ["a.safetensors", "b.safetensors", "c.pt"],
            "",
            "hf://user/name@v1: holds 2 models: a.safetensors, b.safetensors. "
            "Name one, as in hf://user/name@v1/a.safetensors.",
        ),
        (SHARDS, "", "holds 2 models"),
        (["a.pt", "b.bin"], "", "holds 2 models: a.pt, b.bin"),
        (
            ["model.onnx", "small/model.pt"],
            "",
            "hf://user/name@v1: holds no model. Its files are README.md, config.json, "
            ".gitattributes, vocab.txt, model.onnx, small/model.pt. "
            "Name a file or a folder: hf://user/name@v1/FILE.",
        ),
        (
            ["model.pt"],
            "modle.pt",
            "there is no such file in the repository. Did you mean model.pt?",
        ),
        ([], "xyz", "It holds README.md, config.json, .gitattributes, vocab.txt."),
        ([f"m{k}.pt" for k in range(30)], "", "m7.pt and 22 more"),
    ],
)
def test_an_unclear_choice_is_one_error(files: list[str], path: str, message: str) -> None:
    with pytest.raises(InputError) as refused:
        choose_file(Address("user/name", "v1", path), [*CARD, *files])
    assert message in str(refused.value)
