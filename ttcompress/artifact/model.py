"""The compressed model: what `compress` returns and an artifact stores, and how it is saved.

Cores are `<weight>.cores.<k>`, a dense weight in few bits `<weight>.dense`; integer stores split
each into `.planes`, `.scales` and `.factor`. Every other tensor keeps its own name. Metadata:
`format` is "pt", and one JSON string under `ttcompress` holds the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from ttcompress.checkpoint import rebuild
from ttcompress.checkpoint.names import names_inside
from ttcompress.errors import ArtifactError
from ttcompress.model.report import OWN_SIZE, Json, Report
from ttcompress.model.weights import RecurrentStack
from ttcompress.reporting.summary import summary_html, summary_text
from ttcompress.results.document import FORMAT_VERSION
from ttcompress.stores import Encoded
from ttcompress.system.files import written_whole
from ttcompress.system.safetensors import ARTIFACT, file_size, write_safetensors
from ttcompress.trains.stored import StoredWeight
from ttcompress.trains.train import Train

Held = TypeVar("Held")


@dataclass(frozen=True, eq=False)
class CompressedModel:
    """Stored weights, kept tensors, and everything needed to use them without the source.

    `kept` holds every other tensor under the first of its names; `ties` lists all names of a tensor
    that has several. `carried` is the source's nesting with its non-tensor content, as typed JSON.
    `make_module` puts the model into a copy of the module it was made from; None if it was made
    from a file or a state dict.
    """

    weights: tuple[StoredWeight, ...]
    kept: Mapping[str, Tensor]
    ties: Mapping[str, tuple[str, ...]]
    stacks: tuple[RecurrentStack, ...]
    source_paths: Mapping[str, str]
    carried: Any
    report: Report
    make_module: Callable[[CompressedModel], nn.Module] | None = None

    def __repr__(self) -> str:
        return summary_text(self.report, self.file_bytes)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return summary_html(self.report, self.file_bytes)

    def module(self) -> nn.Module:
        """A copy of the module that was compressed, with compressed layers in it.

        Raises:
            ArtifactError: the model was not made from a module.
        """
        if self.make_module is None:
            raise ArtifactError(
                "this model was made from a file or a state dict, so there is no module to copy. "
                "Use ttcompress.load_into(module, model)."
            )
        return self.make_module(self)

    @property
    def tied_shapes(self) -> dict[tuple[str, ...], tuple[int, ...]]:
        """The shape of every tensor, by all of its names."""
        stored: dict[tuple[str, ...], tuple[int, ...]] = {
            one.weight.names: one.weight.shape for one in self.weights
        }
        return stored | {
            self.ties.get(name, (name,)): tuple(kept.shape) for name, kept in self.kept.items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The model's state dict: dense, in the source's dtype, tied tensors under all names.

        Names are the model's own: wrapper keys and prefixes (`module.`) are gone; see `restored`
        for the source's own nesting.
        """
        dense = self._dense()
        return {name: dense[name] for name in names_inside(self.source_paths)}

    def tensor(self, name: str) -> Tensor:
        """One tensor of the state dict; a decomposed weight is rebuilt on each call.

        Raises:
            KeyError: no tensor has that name.
        """
        for stored in self.weights:
            if name in stored.weight.names:
                return stored.dense()
        first = (kept for kept, names in self.ties.items() if name in names)
        return self.kept[next(first, name)]

    def restored(self) -> Any:
        """The source's content: plain nested dicts with its nesting, keys, shapes and dtypes."""
        return rebuild(self.carried, self._dense())

    def content(self) -> dict[str, Train | Tensor]:
        """The state dict with decomposed weights as trains, in float32."""
        first: dict[str, Train | Tensor] = dict(self.kept)
        for stored in self.weights:
            first[stored.weight.name] = (
                stored.train() if stored.layout.decomposes else stored.dense()
            )
        everything = self._under_all_names(first)
        return {name: everything[name] for name in names_inside(self.source_paths)}

    def _dense(self) -> dict[str, Tensor]:
        dense = {stored.weight.name: stored.dense() for stored in self.weights}
        return self._under_all_names({**self.kept, **dense})

    def _under_all_names(self, first: Mapping[str, Held]) -> dict[str, Held]:
        """Add the other names of tied tensors; they share one object."""
        return {tied: held for name, held in first.items() for tied in self.ties.get(name, (name,))}

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the artifact, whole or not at all; the same model gives the same bytes.

        Raises:
            OutputPathError: the path exists (without `overwrite`) or its folder is missing.
            OutputError: the disk is full or not writable.
        """
        with written_whole(Path(path), overwrite) as file:
            write_safetensors(file, self.stored_tensors(), self._metadata())

    @property
    def file_bytes(self) -> int:
        """Bytes of the file that `save` writes."""
        return file_size(self.stored_tensors(), self._metadata())

    def stored_tensors(self) -> dict[str, Tensor]:
        """The tensors of the artifact by their keys."""
        return dict(self.kept) | {
            key + suffix: tensor
            for stored in self.weights
            for key, part in keyed_parts(stored)
            for suffix, tensor in part.tensors.items()
        }

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> CompressedModel:
        """The same model with the values of `tensors`, keyed as by `stored_tensors`."""
        weights = tuple(
            replace(
                stored,
                parts=tuple(
                    Encoded.read(part.store, part.shape, key, tensors)
                    for key, part in keyed_parts(stored)
                ),
            )
            for stored in self.weights
        )
        return replace(self, weights=weights, kept={name: tensors[name] for name in self.kept})

    def with_weights(self, weights: Iterable[StoredWeight]) -> CompressedModel:
        """The same model with other numbers in some weights, and their sizes in its report."""
        changed = {one.weight.name: one for one in weights}
        return replace(
            self,
            weights=tuple(changed.get(one.weight.name, one) for one in self.weights),
            report=self.report.with_sizes({name: one.bytes for name, one in changed.items()}),
        )

    def part(self, names: Collection[str]) -> CompressedModel:
        """The same model with only some tensors in its state dict; `with_part` puts them back."""
        return replace(
            self,
            weights=tuple(one for one in self.weights if one.weight.name in names),
            source_paths={name: p for name, p in self.source_paths.items() if name in names},
        )

    def with_part(self, part: CompressedModel) -> CompressedModel:
        """The same model with the values of a part of it."""
        return replace(self.with_weights(part.weights), kept=part.kept)

    def _metadata(self) -> dict[str, str]:
        document = {
            "format_version": FORMAT_VERSION,
            "plan": [_plan_entry(stored) for stored in self.weights],
            "stacks": [asdict(stack) for stack in self.stacks],
            "ties": {name: list(names) for name, names in self.ties.items()},
            "source_paths": dict(self.source_paths),
            "carried": self.carried,
            "report": _without_own_size(self.report.as_json()),
        }
        text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
        return {"format": "pt", ARTIFACT: text}


def _without_own_size(report: Json) -> Json:
    """The report as its own file stores it: with the limit on the file's size, but no verdict.

    Writing the verdict would change the size that it judges, so the reader of the file judges it.
    """
    limits = [
        {key: limit[key] for key in ("name", "limit")} if limit["name"] == OWN_SIZE else limit
        for limit in report["limits"]
    ]
    return report | {"limits": limits}


def _plan_entry(stored: StoredWeight) -> Json:
    entry: Json = {"weight": asdict(stored.weight), "store": stored.parts[0].store.name}
    if stored.layout.decomposes:
        entry |= {"layout": stored.layout.as_json(), "ranks": stored.ranks}
    zeros = {"zero_rows": stored.zero_rows, "zero_columns": stored.zero_columns}
    entry |= {key: places for key, places in zeros.items() if places}
    return entry


def keyed_parts(stored: StoredWeight) -> Iterator[tuple[str, Encoded]]:
    """The encoded tensors of a weight, by their keys without the store's suffixes."""
    for name, part in zip(stored.layout.core_names, stored.parts, strict=True):
        yield f"{stored.weight.name}.{name}", part
