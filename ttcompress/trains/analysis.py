"""Reads the weights of a model, and keeps the results that planning and decomposing share.

A plan needs the singular values of a weight at several cuts; decomposing it needs the singular
vectors at one of them, usually between rows and columns. `Analysis` computes both together there,
once, and keeps them and the matrix within bounds of memory. What is not kept is read or computed
again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock

import torch
from torch import Tensor

from ttcompress.errors import DecompositionError
from ttcompress.model.report import Errors
from ttcompress.model.weights import Weight
from ttcompress.planning.formats import Layout
from ttcompress.planning.spectrum import Cut, Spectra
from ttcompress.stores import Store
from ttcompress.system.memory import release_memory
from ttcompress.system.progress import Progress, silent
from ttcompress.system.threads import side_by_side
from ttcompress.trains.stored import StoredWeight, measure_errors, store_weight
from ttcompress.trains.tt_svd import Factorization, factorize, spectrum_at
from ttcompress.trains.weighting import Weighting, weighted_factorize

Weightings = Mapping[str, Weighting]
"""The weighting of errors, by the names of the weights: of all, or of none without calibration."""

NO_WEIGHTINGS: Weightings = {}

SMALL = 96 * 2**20
"""Bytes of weights up to which all matrices are kept in memory. Larger models read them again: that
costs less than computing singular vectors again, so those have priority.
"""

_ROWS = 256
"""How many rows are checked together, so that the matrix is never copied as a whole."""


class Analysis:
    """The matrices, spectra and singular vectors of a model's weights.

    Several threads may use it, each for another weight.

    Args:
        tensor: returns a matrix by its weight's name, in the source's dtype, on the CPU.
        weights: all weights of the model; singular vectors may take half of their bytes.
    """

    def __init__(self, tensor: Callable[[str], Tensor], weights: Sequence[Weight]) -> None:
        size = sum(weight.bytes for weight in weights)
        self._tensor = tensor
        self._keeps_matrices = size <= SMALL
        self._left = size // 2 + (SMALL - size if self._keeps_matrices else 0)
        self._lock = Lock()
        self._matrices: dict[str, Tensor] = {}
        self._found: dict[tuple[str, Cut, bool], Factorization] = {}
        self._rounded: dict[tuple[str, Store, bool], StoredWeight] = {}
        self._errors: dict[tuple[str, Store, bool], Errors] = {}

    def matrix(self, weight: Weight) -> Tensor:  # (rows, columns)
        """A weight's matrix, in the source's dtype.

        Raises:
            DecompositionError: it holds NaN or infinity.
        """
        if (kept := self._matrices.get(weight.name)) is not None:
            return kept
        matrix = self._tensor(weight.name)
        check_finite(matrix, weight)
        if self._keeps_matrices:
            self._matrices[weight.name] = matrix
        return matrix

    def spectra(
        self,
        cuts: Mapping[Weight, tuple[Cut, ...]],
        weightings: Weightings = NO_WEIGHTINGS,
        progress: Progress = silent,
    ) -> dict[str, Spectra]:
        """The singular values of each weight at its cuts, by the weight's name.

        Those of a weight with a weighting are in units of the cost of its errors.

        Raises:
            DecompositionError: a weight holds NaN or infinity.
        """

        def find(item: tuple[Weight, tuple[Cut, ...]]) -> Spectra:
            weight, wanted = item
            weighting = weightings.get(weight.name)
            found = {cut: self._factorization(weight, cut, weighting).spectrum for cut in wanted}
            release_memory()
            return found

        def tell(done: int, item: tuple[Weight, tuple[Cut, ...]]) -> None:
            progress("spectra", done, len(cuts), item[0].name)

        every = side_by_side(find, [*cuts.items()], tell)
        named = {weight.name: found for weight, found in zip(cuts, every, strict=True)}
        progress("spectra", len(cuts), len(cuts))
        return named

    def factorizations(
        self, weight: Weight, weighting: Weighting | None
    ) -> dict[Cut, Factorization]:
        """The factorizations of a weight that were kept with their singular vectors, by cut."""
        return {
            cut: found
            for (name, cut, weighted), found in self._found.items()
            if name == weight.name and weighted == (weighting is not None) and found.vectors
        }

    def dense(
        self, weight: Weight, layout: Layout, store: Store, weighting: Weighting | None
    ) -> StoredWeight:
        """A weight rounded to a store without decomposing it.

        Raises:
            DecompositionError: a weight holds NaN or infinity, or overflows the store.
        """
        key = (weight.name, store, weighting is not None)
        if (kept := self._rounded.get(key)) is not None:
            return kept
        matrix = self.matrix(weight)
        try:
            stored, _ = store_weight(matrix, weight, layout, (), store, weighting)
        except DecompositionError as error:
            raise error.at(weight.name) from error
        if self._reserve(weight.params):  # a byte a value, whatever the store
            self._rounded[key] = stored
        return stored

    def dense_errors(
        self, weight: Weight, layout: Layout, store: Store, weighting: Weighting | None
    ) -> Errors:
        """What a weight loses that is rounded as by `dense`."""
        key = (weight.name, store, weighting is not None)
        if key not in self._errors:
            blocks = self.dense(weight, layout, store, weighting).blocks()
            self._errors[key] = measure_errors(self.matrix(weight), blocks, weight)
        return self._errors[key]

    def _factorization(
        self, weight: Weight, cut: Cut, weighting: Weighting | None
    ) -> Factorization:
        key = (weight.name, cut, weighting is not None)
        if key not in self._found:
            matrix = self.matrix(weight)
            if weighting is not None:
                found = weighted_factorize(matrix, cut, weighting)
            elif cut == (weight.shape[0], 1):
                found = factorize(matrix, cut)
            else:
                # Few plans end in two cores with another cut, and vectors take two thirds of the
                # time: `tt_svd` computes these if it needs them.
                found = Factorization(spectrum_at(matrix, cut), ())
            if not self._reserve(found.bytes):
                found = Factorization(found.spectrum, ())
            self._found[key] = found
        return self._found[key]

    def _reserve(self, size: int) -> bool:
        """Take memory for a result that is kept, if there is enough left."""
        with self._lock:
            fits = size <= self._left
            if fits:
                self._left -= size
            return fits


def check_finite(matrix: Tensor, weight: Weight) -> None:
    """Refuse a matrix that cannot be compressed.

    Raises:
        DecompositionError: it holds NaN or infinity.
    """
    bad = sum(int((~rows.isfinite()).sum()) for rows in torch.split(matrix, _ROWS))
    if bad:
        raise DecompositionError(
            f"{weight.name}: {bad} of {weight.params} values are NaN or infinite. "
            "The model is damaged: train it again, or keep this weight with a rule (format: keep)."
        )
