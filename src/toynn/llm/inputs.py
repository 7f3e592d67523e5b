"""Check the inputs of a graph before anything changes. n is T*B: the tokens of all sequences are in one array."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toynn.arguments import INT31_MAX, FloatArray, IntArray, float32, integer, shown
from toynn.errors import TinyNNValueError
from toynn.llm.labels import IGNORE_ID, IGNORED
from toynn.tinynn.arrays import float_array, int_array
from toynn.tinynn.memory import memory_for

_HP = ("lr", "beta1", "beta2", "eps", "weight_decay", "s5", "s6")
_MUON_HP = ("lr", "momentum", "weight_decay")
_DECAY_RATES = ("beta1", "beta2", "momentum")


def checked_token_ids(ids: npt.ArrayLike, n: int, vocab: int, name: str = "seq_ids") -> IntArray:
    """Return ids as int32 (n,), each from 0 to vocab - 1.

    Raises TinyNNValueError or TinyNNTypeError for any other value.
    """
    return _checked_integers(name, ids, n, vocab, "vocab")


def checked_positions(positions: npt.ArrayLike, n: int, ctx: int) -> IntArray:
    """Return positions as int32 (n,), each from 0 to ctx - 1.

    Raises TinyNNValueError or TinyNNTypeError for any other value.
    """
    return _checked_integers("positions", positions, n, ctx, "ctx")


def checked_starts(starts: npt.ArrayLike, t_seq: int, n: int) -> IntArray:
    """Return the starts of samples as int32 (n,): for each token, the position of the first token of its sample in its
    sequence of t_seq tokens. Raises TinyNNValueError or TinyNNTypeError for any other value.
    """
    array = _checked_integers("starts", starts, n, t_seq, "t_seq")
    at = np.arange(n, dtype=np.int32) % np.int32(t_seq)
    wrong = array != at
    wrong[1:] &= (array[1:] != array[:-1]) | (at[1:] == 0)
    if wrong.any():
        i = int(np.flatnonzero(wrong)[0])
        raise TinyNNValueError(
            f"starts[{i}] is {array[i]}, but must be {at[i]} (the position of this token in its sequence), or equal to "
            "the start of the preceding token in this sequence"
        )
    return array


def checked_labels(m_labels: npt.ArrayLike, n: int, vocab: int, *, name: str = "m_labels") -> FloatArray:
    """Return m_labels as float32 (n, vocab), finite and not negative.

    Raises TinyNNValueError or TinyNNTypeError for any other value.
    """
    array = float_array(name, m_labels, n * vocab)
    if array.shape != (n, vocab):
        raise TinyNNValueError(f"{name} must have shape (t_seq * t_batch, vocab) = ({n}, {vocab}), got {array.shape}")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high < float("inf")):  # a NaN makes the first comparison false
        raise TinyNNValueError(f"{name} must be finite and at least 0, got values from {low} to {high}")
    return array


def checked_targets(targets: npt.ArrayLike, n: int, vocab: int, needs_token: bool = True) -> IntArray:
    """Return targets as int32 (n,). Each must be a token id, IGNORE_ID or IGNORED; IGNORED becomes IGNORE_ID.

    needs_token: at least one target must be a token id. Raises TinyNNValueError or TinyNNTypeError for any other value.
    """
    array = int_array("targets", targets, n)
    if array.shape != (n,):
        raise TinyNNValueError(
            f"targets must have shape ({n},), one token id for each of the t_seq * t_batch positions (the fused layout "
            f"takes no one-hot labels), got shape {array.shape}"
        )
    ignored = array == IGNORED
    if ignored.any():
        array = np.where(ignored, np.int32(IGNORE_ID), array)
    # One comparison checks both bounds: as unsigned numbers, IGNORE_ID + 1 is 0, and numbers below IGNORE_ID + 1 are
    # large.
    wrong = array.view(np.uint32) + np.uint32(-IGNORE_ID) > vocab
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise TinyNNValueError(
            f"targets[{at}] is {array[at]}, but must be from 0 to {vocab - 1}, or {IGNORED} or {IGNORE_ID} (ignored)"
        )
    if needs_token and array.max() == IGNORE_ID:
        raise TinyNNValueError(f"targets are all {IGNORED} or {IGNORE_ID} (ignored); at least one must be a token id")
    return array


def checked_clip(max_norm: float, gradient_scale: float, clips: bool) -> FloatArray:
    """Return [[max_norm, gradient_scale]] as float32.

    Raises TinyNNValueError or TinyNNTypeError for any other value.
    """
    values = (float32("max_norm", max_norm), float32("gradient_scale", gradient_scale))
    if not 0.0 <= values[0] < float("inf"):
        raise TinyNNValueError(f"max_norm must be finite and at least 0, got {max_norm!r}")
    if not 0.0 < values[1] < float("inf"):
        raise TinyNNValueError(f"gradient_scale must be finite and above 0, got {gradient_scale!r}")
    if not clips and values != (0.0, 1.0):
        raise TinyNNValueError("max_norm and gradient_scale need build_training_step(clip=True)")
    return np.array([values], dtype=np.float32)


def checked_divisor(divisor: float) -> float:
    """Return the divisor of the loss as a float32 number.

    Raises TinyNNValueError or TinyNNTypeError for any other value.
    """
    value = float32("loss_divisor", divisor)
    if not 0.0 < value < float("inf"):
        raise TinyNNValueError(f"loss_divisor must be finite and above 0, got {divisor!r}")
    return value


def checked_hp(m_hp: npt.ArrayLike) -> FloatArray:
    """Return m_hp as float32 (1, 7), the values that `AdamW.hp` makes. The range of each value is checked.

    Raises TinyNNValueError or TinyNNTypeError for any other value.
    """
    array = _checked_row("m_hp", m_hp, _HP)
    if array[0, _HP.index("eps")] == 0.0:
        raise TinyNNValueError(
            "m_hp: eps must be above 0, got 0; otherwise the update of a weight without a gradient would be 0/0"
        )
    return array


def checked_muon_hp(muon_hp: npt.ArrayLike | None, needed: bool) -> FloatArray | None:
    """Return muon_hp as float32 (1, 3), the values that `Muon.hp` makes, or None if Muon is not used.

    needed: whether the optimizer of the model is Muon. Raises TinyNNValueError or TinyNNTypeError for any other value.
    """
    if (muon_hp is not None) != needed:
        what = "muon_hp is missing: it must be given" if needed else "muon_hp must be left out: it can be used only"
        raise TinyNNValueError(f"{what} for a model that was realized with optimizer='muon'")
    return None if muon_hp is None else _checked_row("muon_hp", muon_hp, _MUON_HP)


def checked_step(step: int | None, needed: bool) -> int | None:
    """Return the number of a step, or None if the moments of the model are f32.

    needed: whether moments of the model are bfloat16. Raises TinyNNValueError or TinyNNTypeError for any other value.
    """
    if step is None and needed:
        raise TinyNNValueError("step is missing: it must be given for a model that was realized with moments='bf16'")
    if step is not None and not needed:
        raise TinyNNValueError(
            f"step must be left out, got {shown(step)}: only a model that was realized with moments='bf16' uses it"
        )
    return None if step is None else integer("step", step, 0, INT31_MAX)


def _checked_row(name: str, row: npt.ArrayLike, columns: tuple[str, ...]) -> FloatArray:
    """Return a row of hyperparameters as float32 (1, n). All must be finite and at least 0, and decay rates below 1."""
    array = float_array(name, row, len(columns))
    if array.shape != (1, len(columns)):
        raise TinyNNValueError(f"{name} must have shape (1, {len(columns)}): {', '.join(columns)}; got {array.shape}")
    for column, value in zip(columns, array[0].tolist(), strict=True):
        if not 0.0 <= value < float("inf"):
            raise TinyNNValueError(f"{name}: {column} must be finite and at least 0, got {value!r}")
        if column in _DECAY_RATES and value >= 1.0:
            raise TinyNNValueError(f"{name}: {column} must be below 1, got {value!r}")
    return array


def block_causal_mask(t_seq: int, t_batch: int, window: int = 0) -> FloatArray:
    """Return the attention mask float32 (T*B queries, T*B keys): 0 for keys that a query sees, -1e30 for all others.

    A query sees the keys of its own sequence up to its own position. If `window` is above 0, a query sees only the last
    `window` of these keys.
    """
    with memory_for("t_batch", 4 * (t_batch * t_seq) ** 2 + 2 * t_seq**2, "the rows of the block-causal mask"):
        causal = np.tril(np.ones((t_seq, t_seq), dtype=bool))  # (T queries, T keys)
        if window:
            causal &= ~np.tril(causal, -window)
        mask = np.full((t_batch * t_seq, t_batch * t_seq), -1e30, dtype=np.float32)
    for b in range(t_batch):
        own = slice(b * t_seq, (b + 1) * t_seq)
        mask[own, own][causal] = 0.0
    return mask


def _checked_integers(name: str, value: npt.ArrayLike, n: int, limit: int, limit_is: str) -> IntArray:
    array = int_array(name, value, n)
    if array.shape != (n,):
        raise TinyNNValueError(f"{name} must have shape ({n},), t_seq * t_batch integers, got shape {array.shape}")
    wrong = array.view(np.uint32) >= limit  # as an unsigned number, a negative number is large
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise TinyNNValueError(f"{name}[{at}] is {array[at]}, but must be from 0 to {limit - 1} ({limit_is} = {limit})")
    return array
