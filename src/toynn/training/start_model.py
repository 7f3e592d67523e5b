"""Create the model of a run in an engine, with the weights and moments of its start."""

from __future__ import annotations

from toynn.arguments import INT31_MAX
from toynn.errors import ConfigurationError, FileFormatError
from toynn.llm.adapters.model_on_base import ModelOnBase, adapter_of
from toynn.llm.engine import LlamaSeqEngine
from toynn.llm.options import RecipeOptions
from toynn.model.spread import EMBEDDING_STD
from toynn.model.weights import NO_OPTIMIZER, UNAVERAGED
from toynn.training.averages import AveragedWeights
from toynn.training.defaults import INIT_SCALE
from toynn.training.start import Start, trained_names


def declare_model(
    start: Start, n_threads: int | None, engine: LlamaSeqEngine, t_seq: int, batch: int, updates: bool = True
) -> None:
    """Create the model in the engine, with the weights of the start, for a batch of windows of t_seq tokens.

    updates: False if the engine only computes gradients.
    """
    options = RecipeOptions(
        t_seq=t_seq,
        t_batch=2 * batch if start.config.preference else batch,
        seed=start.config.train.seed,
        init_scale=(start.config.model and start.config.model.init_scale) or INIT_SCALE,
        embedding_std=(start.config.model and start.config.model.embedding_std) or EMBEDDING_STD,
        n_threads=n_threads,
        layout="fused",
        optimizer=start.config.optimizer_kind if updates else NO_OPTIMIZER,
        precision=start.config.train.precision,
        z_loss=start.config.train.z_loss,
        moments=start.config.optimizer.moments,
    )
    contents = None if start.checkpoint is None else start.checkpoint.contents
    if isinstance(contents, ModelOnBase):
        if contents.adapter is None or start.base is None:
            raise AssertionError("bug in toynn: a run on a base has no adapter or no base; please report it")
        engine.realize_with_adapter(start.base.weights, contents.adapter.spec, options, contents.adapter.tensors)
    else:
        weights = None if contents is None else contents.weights
        engine.realize(start.shape, options, weights, only=trained_names(start))


def realize(engine: LlamaSeqEngine, start: Start, n_threads: int | None, batch: int, updates: bool = True) -> None:
    """Create the model in the engine, with the weights and, with updates, the moments of the start.

    batch, updates: as for `declare_model`. Raises TinyNNMemoryError if there is not enough memory; ConfigurationError
    if a batch has too many tokens; or FileFormatError if moments are missing.
    """
    if start.t_seq * (2 * batch if start.config.preference else batch) > INT31_MAX:
        raise ConfigurationError(
            f"train.batch = {batch} is too large: a batch must have at most {INT31_MAX} tokens, but each window has "
            f"{start.t_seq}"
        )
    declare_model(start, n_threads, engine, start.t_seq, batch, updates)
    if start.state is not None and start.step:
        trained = engine.trained_weights()
        ends = (UNAVERAGED,) if start.config.optimizer.ema > 0 else ()
        names = {one.name + end for one in trained for end in (*one.moments(start.config.optimizer_kind), *ends)}
        if (wrong := names.symmetric_difference(start.state.moments)) and start.checkpoint is not None:
            raise FileFormatError(
                f"{start.checkpoint.path} is damaged: its moments must be those of the trained weights, but "
                f"{min(wrong)!r} is {'missing' if min(wrong) in names else 'unknown'}; use another checkpoint"
            )
        for name, values in start.state.moments.items() if updates else ():
            engine.upload_weight(name.removesuffix(UNAVERAGED), values)


def averages_of(engine: LlamaSeqEngine, start: Start) -> AveragedWeights | None:
    """Return the averages of the trained weights after `realize`, or None without optimizer.ema.

    A resumed run takes them from its checkpoint, which has the averages as the weights of the model.
    """
    decay = start.config.optimizer.ema
    if decay == 0:
        return None
    if start.state is None or start.checkpoint is None or start.step == 0:
        return AveragedWeights(engine, decay)
    contents = start.checkpoint.contents
    adapter = adapter_of(contents)
    if adapter is not None:
        return AveragedWeights(engine, decay, adapter.tensors)
    return AveragedWeights(engine, decay, start.checkpoint.model.weights)
