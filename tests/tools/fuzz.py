"""Changed files go through every reader, which must answer soon, in little memory, or refuse.

    python tests/tools/fuzz.py [--cases 20000] [--seed 0] [--only READER ...] [--keep FOLDER]

Each case is a real file with a few changes: bits, slices and numbers anywhere; in structured files
also values of the JSON or YAML and, behind correct checksums, the pickle in a zip. What was not
refused is used as the commands would use it. Prints a table; exits 1 if there was a defect, whose
file is then in FOLDER. A case is repeated by its reader, seed and number.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import ttcompress
from ttcompress.artifact import load
from ttcompress.checkpoint import open_checkpoint, rebuild
from ttcompress.errors import TTCompressError
from ttcompress.layers.structure import structure_of
from ttcompress.model.report import Change, Verdict
from ttcompress.recipe import load_recipe
from ttcompress.reporting.markdown import report_markdown
from ttcompress.results.outcome import Outcome
from ttcompress.targets.parts import recurrent_parts
from ttcompress.workflows.baseline import read_baseline
from ttcompress.workflows.manifest import read_manifest

SECONDS = 10
"""For one case; the slowest that is right takes a fraction of one."""

ROOM = 1 << 30
"""Bytes of address space that a case may take beyond what the program has."""

RECIPES = Path(__file__).parents[2] / "recipes"
NUMBERS = (0, 1, -1, 255, 2**31 - 1, 2**32 - 1, 2**53, 2**60, 2**63 - 1, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**60, 2**70, 0.5, 1e308, float("nan"), "", "a", "\0", "../x",
    10**400, "\ud800", "\x1b[2J", "A" * 5000, [], [0], [2**40, 2**40], [[[]]], {}, {"a": 1},
)  # fmt: skip

MANIFEST = """\
version: 1
output: {folder: out, name: "{model}.{recipe}.safetensors"}
limits: {max_drop: 2%, min_factor: 6}
baseline: {metric: 1%, size: 1%}
task: {name: language-model, text: zip}
matrix:
  models: [zip, {path: legacy, limits: {max_size: 1MB}}]
  recipes: [balanced, small]
  exclude: [{model: legacy, recipe: small}]
jobs: [{path: module, recipe: tiny}]
"""
CHANGE: Change = {"before": 1.0, "after": 2.0, "drop": 1.0, "higher_is_better": False}
VERDICT: Verdict = {"name": "max_drop", "limit": 0.1, "value": 1.0, "ok": False}

RANKED = {"version": 1, "budget": {"rank": 2}, "store": "int4", "default": "decompose"}

Mutate = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Reader:
    """A real file, how it is changed, and how it is read and used."""

    seed: Path
    use: Callable[[Path], object]
    mutations: tuple[Mutate, ...]


@dataclass
class Tally:
    """Of one reader."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    defects: list[str] = field(default_factory=list)


class TooSlow(BaseException):
    """Not an Exception: no handler may take it for the file's fault."""


def bits(data: bytes, chance: random.Random) -> bytes:
    """A few bits flipped, more often near the beginning, where headers are."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        position = int(len(data) * chance.random() ** chance.choice((1, 3)))
        changed[min(position, len(data) - 1)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def slices(data: bytes, chance: random.Random) -> bytes:
    """Cut short, a piece removed, doubled, moved, or made of noise."""
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    end = min(end, start + chance.choice((1, 8, 200, len(data))))
    piece = data[start:end]
    noise = chance.randbytes(chance.choice((1, 4, 64)))
    return chance.choice(
        (data[:start], data[:start] + data[end:], data[:end] + piece + data[end:],
         piece + data, data[:start] + noise + data[end:], data + piece)
    )  # fmt: skip


def numbers(data: bytes, chance: random.Random) -> bytes:
    """An integer of 1 to 8 bytes made extreme: lengths, counts and offsets are such."""
    size = chance.choice((1, 2, 4, 8))
    position = int(len(data) * chance.random() ** chance.choice((1, 4)))
    order = chance.choice(("little", "big"))
    value = (chance.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, order)
    return data[:position] + value + data[position + size :]


def plain(data: bytes, chance: random.Random) -> bytes:
    """Any of the changes that need no structure."""
    return chance.choice((bits, slices, numbers))(data, chance)


def in_tree(value: Any, chance: random.Random) -> Any:
    """A tree of mappings and lists with one place changed; it is changed in place."""
    places = list(_places(value))
    if not places:
        return deepcopy(chance.choice(VALUES))
    holder, key = chance.choice(places)
    what = chance.randrange(5)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif what == 2:
        other, other_key = chance.choice(places)
        holder[key] = deepcopy(other[other_key])
    else:
        holder[key] = deepcopy(chance.choice(VALUES))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(value, dict | list):
        return
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        yield from _places(inner)


def safetensors_header(data: bytes, chance: random.Random) -> bytes:
    """A value of the header changed, its length right."""
    (length,) = struct.unpack("<Q", data[:8])
    header = in_tree(json.loads(data[8 : 8 + length]), chance)
    return _with_header(header, data[8 + length :])


def artifact_document(data: bytes, chance: random.Random) -> bytes:
    """Values of the artifact's JSON changed, inside a header that is right."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header["__metadata__"]["ttcompress"])
    for _ in range(chance.randint(1, 3)):
        document = in_tree(document, chance)
    header["__metadata__"]["ttcompress"] = json.dumps(document)
    return _with_header(header, data[8 + length :])


def coded_streams(data: bytes, chance: random.Random) -> bytes:
    """Bits, slices or numbers of a coded tensor changed, to any length, in a file that is whole."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata, tensors = header["__metadata__"], load_tensors(data)
    for name in chance.choices([name for name in tensors if name.endswith(".coded")], k=2):
        stream = plain(tensors[name].numpy().tobytes(), chance)
        tensors[name] = torch.tensor(list(stream), dtype=torch.uint8)
    return save_tensors(tensors, metadata)


def _with_header(header: Any, rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def json_text(data: bytes, chance: random.Random) -> bytes:
    """A value of a JSON file changed."""
    return json.dumps(in_tree(json.loads(data), chance)).encode()


def yaml_text(data: bytes, chance: random.Random) -> bytes:
    """Values of a YAML file changed."""
    value = yaml.safe_load(data)
    for _ in range(chance.randint(1, 3)):
        value = in_tree(value, chance)
    return yaml.safe_dump(value, allow_unicode=True).encode()


def zipped_pickle(data: bytes, chance: random.Random) -> bytes:
    """The pickle in a zip changed, with a checksum that fits."""
    return _in_zip(data, (".pkl",), plain, chance)


def zipped_code(data: bytes, chance: random.Random) -> bytes:
    """The code in a zip changed, in which TorchScript names parameters and buffers."""
    return _in_zip(data, (".py", ".pkl"), plain, chance)


def zipped_models(data: bytes, chance: random.Random) -> bytes:
    """The pickles of the models in a zip changed."""
    return _in_zip(data, (".pth",), zipped_pickle, chance)


def _in_zip(data: bytes, endings: tuple[str, ...], change: Mutate, chance: random.Random) -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(found, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content, chance) if name.endswith(endings) else content)
    return found.getvalue()


def renamed_parts(data: bytes, chance: random.Random) -> bytes:
    """Tensors of a state dict swapped, doubled, removed or renamed: parts that do not fit."""
    state = torch.load(io.BytesIO(data))
    for _ in range(chance.randint(1, 4)):
        one, other = chance.choices(list(state), k=2)
        what = chance.randrange(5)
        if what == 0:
            state[one], state[other] = state[other], state[one]
        elif what == 1:
            suffix = chance.choice(("_g", "_v", "_u", "_orig", "_mask", "0._u", "_orig_mask", ""))
            state[one.rpartition("_")[0] + suffix] = state[other]
        elif what == 2:
            state[one] = state[one].to(chance.choice((torch.int8, torch.float16, torch.complex64)))
        elif what == 3 and state[one].numel():
            state[one] = state[one].flatten()[:1].expand(chance.choice((0, 1, 16, 10**5)), 3)
        elif len(state) > 2:
            del state[one]
    found = io.BytesIO()
    torch.save(state, found)
    return found.getvalue()


def use_checkpoint(path: Path) -> None:
    """As `inspect`, `decompose` and `restore` would."""
    checkpoint = open_checkpoint(path)
    tensors = {name: checkpoint.tensor(name) for name in checkpoint.source_paths}
    rebuild(checkpoint.carried, tensors)
    ttcompress.inspect(path).as_json()
    compressed = ttcompress.compress(path, RANKED)
    assert compressed.file_bytes > 0
    compressed.restored()


def use_artifact(path: Path) -> None:
    """As `report`, `restore`, `export`, `verify` and a user's own code would."""
    compressed = load(path)
    report_markdown(path.name, compressed.report, path.stat().st_size)
    assert compressed.file_bytes > 0
    structure_of(compressed)
    uses: tuple[Callable[[], object], ...] = (
        compressed.restored,
        compressed.state_dict,
        lambda: list(recurrent_parts(compressed)),
        lambda: ttcompress.load_into(Model(), compressed),
        lambda: ttcompress.verify(path, path.with_name("zip")),
    )
    refused = [error for use in uses if (error := refusal(use)) is not None]
    if refused:
        raise refused[0]


def refusal(use: Callable[[], object]) -> TTCompressError | None:
    """The error that refuses a use; another one is a defect, and goes through."""
    try:
        use()
    except TTCompressError as error:
        return error
    return None


class Model(nn.Module):
    """Two layers and a head, a few hundred numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
        self.head = nn.Linear(8, 5)


def reparametrised() -> nn.Module:
    """A model with weights of every kind that is computed from other tensors."""
    model = Model()
    parametrizations.weight_norm(model.lstm, "weight_ih_l0")
    parametrizations.spectral_norm(model.lstm, "weight_hh_l0")
    weight_norm(model.lstm, "weight_ih_l1")
    spectral_norm(model.lstm, "weight_hh_l1")
    prune.l1_unstructured(model.head, "weight", 0.5)
    return model


def readers(folder: Path) -> dict[str, Reader]:
    """Every reader with a real file, made in `folder`."""
    torch.manual_seed(0)
    model = Model()
    content = {"model": model.state_dict(), "vocab": {"a": 0, 3: (1, 2)}, "epoch": 7}
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    torch.save(content, folder / "zip")
    torch.save(content, folder / "legacy", _use_new_zipfile_serialization=False)
    (folder / "pickle").write_bytes(pickle.dumps(arrays, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(model, folder / "module")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "safetensors", {"format": "pt"})
    save_file(state, folder / "shard.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(state, "shard.safetensors")}
    (folder / "index").write_text(json.dumps(index))
    recipe = {"version": 1, "budget": {"factor": 3}, "default": "decompose", "store": "int4"}
    ttcompress.compress(folder / "zip", recipe).save(folder / "artifact")
    ttcompress.compress(folder / "zip", recipe | {"store": "coded"}).save(folder / "coded")
    shutil.copy(RECIPES / "explicit-ranks.yaml", folder / "recipe")
    (folder / "manifest").write_text(MANIFEST)
    outcome = Outcome("a", "b", "c", 1.0, 1, False, 9, 3, 3.0, {"m": CHANGE}, (VERDICT,))
    (folder / "baseline").write_text(json.dumps({"jobs": [outcome.as_json()]}))
    zip_ways, plain_ways = (plain, zipped_pickle, zipped_pickle), (plain,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(folder / "script")
        kinds = {nn.LSTM, nn.Linear}
        torch.save(torch.ao.quantization.quantize_dynamic(model, kinds), folder / "quantised")
        torch.save(reparametrised().state_dict(), folder / "reparametrised")
    with zipfile.ZipFile(folder / "archive", "w") as archive:
        archive.write(folder / "zip", "policy.pth")
        archive.write(folder / "reparametrised", "value.pth")
    np.savez(folder / "npz.npz", **arrays)
    return {
        "reparametrised": Reader(
            folder / "reparametrised", use_checkpoint, (zipped_pickle, renamed_parts, renamed_parts)
        ),
        "torchscript": Reader(folder / "script", use_checkpoint, (plain, zipped_code, zipped_code)),
        "quantised": Reader(folder / "quantised", use_checkpoint, zip_ways),
        "archive": Reader(folder / "archive", use_checkpoint, (plain, zipped_models)),
        "npz": Reader(folder / "npz.npz", use_checkpoint, plain_ways),
        "torch zip": Reader(folder / "zip", use_checkpoint, zip_ways),
        "torch zip, module": Reader(folder / "module", use_checkpoint, zip_ways),
        "torch legacy": Reader(folder / "legacy", use_checkpoint, plain_ways),
        "pickle": Reader(folder / "pickle", use_checkpoint, plain_ways),
        "safetensors": Reader(folder / "safetensors", use_checkpoint, (plain, safetensors_header)),
        "index of shards": Reader(folder / "index", use_checkpoint, (plain, json_text)),
        "artifact": Reader(
            folder / "artifact", use_artifact, (plain, artifact_document, artifact_document)
        ),
        "coded artifact": Reader(
            folder / "coded", use_artifact, (plain, artifact_document, coded_streams, coded_streams)
        ),
        "recipe": Reader(folder / "recipe", load_recipe, (plain, yaml_text, yaml_text)),
        "manifest": Reader(folder / "manifest", read_manifest, (plain, yaml_text, yaml_text)),
        "baseline": Reader(folder / "baseline", read_baseline, (plain, json_text, json_text)),
    }


@contextmanager
def bounded() -> Iterator[None]:
    """At most `SECONDS`, and `ROOM` more address space than now."""

    def late(*_: object) -> None:
        raise TooSlow

    status = Path("/proc/self/statm").read_text().split()
    limit = int(status[0]) * resource.getpagesize() + ROOM
    before = resource.getrlimit(resource.RLIMIT_AS)
    old = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, old)


def outcome(reader: Reader, path: Path) -> tuple[str, str]:
    """What came of one file, and the defect it shows or nothing."""
    beside = sorted(path.parent.iterdir())
    try:
        with bounded():
            reader.use(path)
    except TTCompressError as error:
        found = (type(error).__name__, "" if len(str(error)) > 20 else f"says only {error}")
    except TooSlow:
        return "slow", f"took more than {SECONDS} s"
    except BaseException:
        return "defect", traceback.format_exc()
    else:
        found = ("read", "")
    changed = sorted(path.parent.iterdir()) != beside
    return ("defect", "another file was written") if changed else found


def fuzz(reader: Reader, name: str, cases: int, seed: int, keep: Path | None) -> Tally:
    """Read so many changed files."""
    tally, original = Tally(), reader.seed.read_bytes()
    path = reader.seed.with_name("case")
    for case in range(cases):
        chance = random.Random(f"{name} {seed} {case}")
        path.write_bytes(chance.choice(reader.mutations)(original, chance))
        started = time.perf_counter()
        found, defect = outcome(reader, path)
        tally.slowest = max(tally.slowest, time.perf_counter() - started)
        tally.outcomes[found] += 1
        if defect:
            tally.defects.append(f"{name}, seed {seed}, case {case}: {defect}")
            if keep is not None:
                shutil.copy(path, keep / f"{name.replace(' ', '-')}-{seed}-{case}")
    return tally


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    defects: list[str] = []
    print(f"{'reader':18} {'cases':>6} {'slowest s':>9}  outcomes")
    with tempfile.TemporaryDirectory() as folder:
        chosen = {
            name: reader
            for name, reader in readers(Path(folder)).items()
            if not asked.only or name in asked.only
        }
        for name, reader in chosen.items():
            cases = -(-asked.cases // len(chosen))
            tally = fuzz(reader, name, cases, asked.seed, asked.keep)
            counts = ", ".join(f"{kind} {n}" for kind, n in tally.outcomes.most_common())
            print(f"{name:18} {cases:6} {tally.slowest:9.2f}  {counts}", flush=True)
            defects += tally.defects
    for defect in defects[:20]:
        print(defect, file=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(defects)} defects; at most {peak:,.0f} MB of memory, the program's own included")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
