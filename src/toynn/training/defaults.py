"""The defaults that depend on the width of the model and on the start of a run.

docs/training-recipes.md describes the runs by which these values were chosen. The models of `toynn plan` are trained
with these defaults too. If a value for random initial weights changes, the runs of `make scaling-law` must be repeated.
"""

from __future__ import annotations

ADAMW, MUON = "adamw", "muon"
INIT_SCALE = 0.12  # the default of model.init_scale
# random initial weights, with AdamW for all weights: the learning rate is 0.4 / d_model, at most 0.01
LR_TIMES_WIDTH, HIGHEST_LR = 0.4, 0.01
# random initial weights, with Muon: AdamW updates only embedding, output, norms and biases
LR_TIMES_WIDTH_WITH_MUON, HIGHEST_LR_WITH_MUON = 1.28, 0.0133
FINE_TUNING = 0.1  # an existing model is trained with this fraction of the learning rate of random initial weights
# the learning rates of dpo are smaller, because preference pairs change a model less than new text does
LR_OF_DPO, LR_OF_DPO_ADAPTERS = 3e-5, 1e-5


def optimizer_of_start(*, existing: bool, adapter: bool) -> str:
    """Return the default of optimizer.kind.

    existing: training starts from an existing model. adapter: only an adapter is trained.
    """
    return ADAMW if existing or adapter else MUON


def learning_rate_of_start(
    d_model: int, *, existing: bool, adapter: bool, preference: bool, muon: bool = False
) -> float:
    """Return the default of optimizer.lr for a model of width d_model.

    existing: training starts from an existing model. adapter: only an adapter is trained. preference: the objective is
    dpo. muon: the optimizer is Muon.
    """
    if preference:
        return LR_OF_DPO_ADAPTERS if adapter else LR_OF_DPO
    if muon and not existing and not adapter:
        return min(LR_TIMES_WIDTH_WITH_MUON / d_model, HIGHEST_LR_WITH_MUON)
    from_random_weights = min(LR_TIMES_WIDTH / d_model, HIGHEST_LR)
    return from_random_weights * FINE_TUNING if existing and not adapter else from_random_weights
