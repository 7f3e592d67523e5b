"""Print, as JSON, digests of values that must have the same bytes on every processor: initial weights and sampling.

`check_aarch64.py` runs this on both processors and compares the output.
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import numpy.typing as npt

from toynn import Sampling
from toynn.model.init_streams import STREAMS
from toynn.text.exponential import exp
from toynn.text.sampling import choices

SEEDS = (0, 1, 7, -6, 123456789, 2**62)
VALUES = 1_000_000  # number of values that are compared for each random stream


def digest(*arrays: npt.NDArray[np.generic]) -> str:
    result = hashlib.sha256()
    for array in arrays:
        result.update(np.ascontiguousarray(array).tobytes())
    return result.hexdigest()


def main() -> None:
    result = {
        f"{name}, seed {seed}": digest(make(seed).gaussian(VALUES, 0.02))
        for name, make in STREAMS.items()
        for seed in SEEDS
    }
    part = np.arange(VALUES) / VALUES
    result["exp"] = digest(exp(-708 * part * part * part))
    # The logits are multiples of 1/8, so many logits are equal and the order of equal logits is compared as well.
    noise = STREAMS["lcg31"](5).gaussian(200 * 1000, 1.0).reshape(200, 1000)
    for logits in (noise, np.round(noise * 8) / 8):
        for sampling in (Sampling(), Sampling(0.3, 0, 0.9, 0.05), Sampling(1.7, 0, 1.0, 0.0)):
            chosen = [choices(row, sampling) for row in logits]
            key = f"choices of {'equal' if logits is not noise else 'different'} logits, {sampling}"
            result[key] = digest(*(array for pair in chosen for array in pair))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
