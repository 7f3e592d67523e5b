"""New rows of a resized vocabulary are the mean of the existing rows, and the existing rows do not change."""

from __future__ import annotations

import numpy as np
import pytest

from interop_models import VOCAB, make
from toynn import TinyNNValueError
from toynn.model.resize import resized


@pytest.mark.parametrize("name", ["tied", "untied", "projection lens"])
def test_new_rows_are_the_mean_of_the_existing_rows(name: str) -> None:
    model = make(name)
    larger = resized(model, VOCAB + 3, b"{}")
    assert (larger.shape.vocab, larger.tokenizer) == (VOCAB + 3, b"{}")
    changed = [name for name, values in model.weights.items() if values.shape != larger.weights[name].shape]
    assert len(changed) == (1 if name == "tied" else 2)
    for name_, values in model.weights.items():
        now = larger.weights[name_]
        assert now[: values.shape[0]].tobytes() == values.tobytes()
        if name_ in changed:
            mean = values.astype(np.float64).sum(axis=0) / VOCAB
            np.testing.assert_allclose(now[VOCAB:], np.tile(mean, (3, 1)), rtol=1e-6, atol=1e-9)
    with pytest.raises(
        TinyNNValueError, match=r"vocab must be at least 512 \(the size of the model's vocabulary\), got 511"
    ):
        resized(model, VOCAB - 1, b"{}")
