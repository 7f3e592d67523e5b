"""Preference: the loss of pairs of sequences (DPO), and its inputs in a graph of the fused layout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toynn.arguments import FloatArray, kind_of, not_finite, one_of, positive, real
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.tinynn import Session, Tensor, upload_row_major

KINDS = ("sigmoid", "hinge", "ipo")  # in the order of enum tnn_preference


@dataclass(frozen=True)
class Preference(Initialised):
    """The loss of a pair of sequences, of which the first one (chosen) is preferred to the second one (rejected).

    The change of a sequence is its log-probability minus its log-probability in the reference model. The margin m of a
    pair is the change of the chosen sequence minus the change of the rejected one.

    kind: "sigmoid": -log(sigmoid(beta m)), the loss of DPO. "hinge": max(0, 1 - beta m). "ipo": (m - 1 / (2 beta))^2,
        in which each log-probability is divided by the number of its tokens.
    beta: the factor of the margin in the loss.
    label_smoothing: for "sigmoid", the assumed share of pairs whose order is wrong, at least 0 and below 0.5.

    Raises TinyNNValueError or TinyNNTypeError, which name the field.
    """

    kind: str = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        object.__setattr__(self, "beta", positive("beta", self.beta))
        smoothing = real("label_smoothing", self.label_smoothing, lambda x: 0 <= x < 0.5, "at least 0 and below 0.5")
        object.__setattr__(self, "label_smoothing", smoothing)
        if smoothing > 0 and self.kind != "sigmoid":
            raise TinyNNValueError(f'label_smoothing = {smoothing} needs the kind "sigmoid", got {self.kind!r}')

    def settings(self, divisor: float) -> list[list[float]]:
        """Return the values of the input `settings` of `tnn_fused_preference_loss`."""
        return [[self.beta, self.label_smoothing, divisor]]


@dataclass(frozen=True)
class PreferenceInputs:
    """The inputs of a preference loss in a graph.

    reference: f32 (2, B), the log-probabilities in the reference model.
    settings: f32 (3,).
    pairs: f32 (3, B / 2). The first row contains the losses of the pairs.
    """

    preference: Preference
    reference: Tensor
    settings: Tensor
    pairs: Tensor


@dataclass(frozen=True)
class ReferenceValues:
    """The checked values of the inputs of a preference loss. rows: float32 (2, B)."""

    inputs: PreferenceInputs
    rows: FloatArray

    @classmethod
    def checked(cls, inputs: PreferenceInputs | None, reference: object, n: int) -> ReferenceValues | None:
        """Return the checked values; None if the graph has no preference.

        n: number of sequences.

        Raises TinyNNValueError or TinyNNTypeError if `reference` is wrong or does not fit the graph.
        """
        if inputs is None:
            if reference is not None:
                raise TinyNNValueError("reference must be left out, because the graph was built without a preference")
            return None
        return cls(inputs, checked_reference(reference, n))

    def upload(self, s: Session, divisor: float) -> None:
        """Upload the values. divisor: the number of pairs by which the sum of their losses is divided."""
        upload_row_major(s, self.inputs.reference, self.rows)
        upload_row_major(s, self.inputs.settings, self.inputs.preference.settings(divisor))


def checked_reference(reference: object, n: int) -> FloatArray:
    """Return log-probabilities of n sequences as float32 (2, n). The two numbers in column i add up to the
    log-probability of sequence i.

    Raises TinyNNTypeError for another dtype, or TinyNNValueError for another shape or a number that is not finite.
    """
    if not isinstance(reference, np.ndarray) or reference.dtype != np.float64:
        found = f"dtype {reference.dtype}" if isinstance(reference, np.ndarray) else kind_of(reference)
        raise TinyNNTypeError(f"reference must be an array of float64, got {found}")
    values: npt.NDArray[np.float64] = reference
    if values.shape != (n,):
        raise TinyNNValueError(f"reference must have shape ({n},), one number for each sequence, got {values.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        high = values.astype(np.float32)
        low = (values - high.astype(np.float64)).astype(np.float32)
    if not_finite(high) is not None:
        at = int(np.isfinite(high).argmin())
        raise TinyNNValueError(
            f"reference must contain only finite numbers that fit float32, got {values[at]} at [{at}]"
        )
    return np.stack([high, low])
