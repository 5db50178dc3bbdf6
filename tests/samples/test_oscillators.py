import hashlib
import struct
from itertools import pairwise

from ttcompress.samples import oscillators
from ttcompress.samples.corpus import SPLITS
from ttcompress.samples.oscillators import NAMES, ROWS

# Of the whole series, bit for bit: another digest is another series, and the sample's baseline
# is then no longer true.
DIGEST = "a3a596755806476d9a6e5aa3b63b4f6b7f3ad2f59b45a563eabad25b9526c505"


def test_the_series_is_the_same_everywhere() -> None:
    digest = hashlib.sha256()
    for split in SPLITS:
        rows = oscillators.load(split)
        assert len(rows) == ROWS[split]
        for row in rows:
            digest.update(struct.pack("<4d", *row))
    assert digest.hexdigest() == DIGEST


def test_each_oscillator_keeps_swinging_around_its_centre() -> None:
    rows = oscillators.load("train")
    crossings = []
    for values in zip(*rows, strict=True):
        assert abs(sum(values) / len(values)) < 0.01
        assert 1 < (sum(x * x for x in values) / len(values)) ** 0.5 < 2
        crossings.append(sum(a < 0 <= b for a, b in pairwise(values)))
    assert len(crossings) == len(NAMES)
    assert crossings == sorted(crossings)  # the higher its frequency, the more periods
