"""TunedModel: how an engine gets its model, and which of its weights are trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy.typing as npt

from toynn.arguments import FloatArray, instance_of, integer, kind_of, not_finite, same_weights, weights_by_name
from toynn.errors import SessionError, TinyNNTypeError, TinyNNValueError
from toynn.llm.adapters.lora import initial_adapters
from toynn.llm.adapters.spec import AdapterSpec
from toynn.llm.base import StoredWeights, base_of, checked_shape, values_of
from toynn.llm.engine.seq_names import SeqNames
from toynn.llm.layouts import BY_NAME
from toynn.llm.options import RecipeOptions
from toynn.llm.parameters import Parameters
from toynn.llm.tuning import EVERYTHING, NOTHING, Tuning
from toynn.model.config import SmolLM2Config
from toynn.model.init_streams import make_stream
from toynn.model.shape import ModelShape
from toynn.model.spread import Spread
from toynn.model.weights import EMBEDDING
from toynn.tinynn import TNN_F32, Session
from toynn.tinynn.arrays import float_array

HOW_TO_TRAIN = "before the model is realized, call enable_full_finetune, or enable_lora_q and enable_lora_q_adamw"


class TunedModel(SeqNames):
    """A model that is realized once, in one of these ways:

    - `realize_for_random_init`, `realize`: new or given weights. All are trained, except a frozen embedding.
    - `realize_for_full_finetune`: the weights of another model, after `enable_full_finetune`. The weights of the layers
      are trained; after `enable_full_finetune_embeddings`, all weights are trained.
    - `realize_for_mmap`, `realize_for_q8_copy`: another model as a frozen base, with adapters after `enable_lora_q`.

    Make the enable_* calls before the model is realized. After `close`, the enable_* calls still apply to the next
    model on a base.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tuning = NOTHING

    # ---- the choice of trained weights ----

    def enable_lora_q(self, rank: int) -> None:
        """Give each query head an adapter: q = W h + B (A h), with A (rank, d_model) and B (d_head, rank).

        Raises TinyNNValueError or TinyNNTypeError for a rank below 1; a rank above d_head is refused when the model is
        realized. Raises SessionError after realize, as the other enable_* calls do.
        """
        self._enable("enable_lora_q", lambda old: replace(old, q_rank=integer("rank", rank, 1)))

    def enable_lora_q_adamw(self) -> None:
        """Train the adapters of `enable_lora_q`: they get gradients and moments."""
        self._enable("enable_lora_q_adamw", lambda old: replace(old, trains_adapters=True))

    def enable_full_finetune(self) -> None:
        """Let `realize_for_full_finetune` train the weights of the layers."""
        self._enable("enable_full_finetune", lambda old: replace(old, layers=True))

    def enable_full_finetune_embeddings(self) -> None:
        """Let `realize_for_full_finetune` train the embedding, the output norm and the output matrix too."""
        self._enable("enable_full_finetune_embeddings", lambda old: replace(old, globals_too=True))

    def _enable(self, call: str, change: Callable[[Tuning], Tuning]) -> None:
        if self.realized:
            raise SessionError(f"{call} must be called before the model is realized")
        self._tuning = change(self._tuning)

    # ---- new weights ----

    def realize_for_random_init(
        self,
        cfg: SmolLM2Config,
        t_seq: int,
        t_batch: int,
        weight_dtype: int,
        untied: bool,
        qkv_bias: bool,
        seed: int,
        init_scale: float,
        *,
        init_stream: str = "lcg31",
        n_threads: int | None = None,
        oversubscribe: bool = False,
        layout: str = "per_head",
    ) -> None:
        """Declare the model on a new session and draw its weights. All weights are trained, except a frozen embedding.

        Args:
            cfg: the model's shape.
            t_seq, t_batch: length and number of the sequences of one step. t_seq is at most cfg.ctx.
            weight_dtype: the type to which the matrices of the layers are rounded where the graph uses them: 0 = F32,
                1 = F16, 30 = BF16. The weights themselves stay F32.
            untied: the output matrix is a weight of its own, not the embedding.
            qkv_bias: the projections q, k and v have biases.
            seed, init_scale, init_stream: how the initial weights are drawn.
            n_threads, oversubscribe: as for `Session`.
            layout: "per_head" or "fused", see `RecipeOptions`. "fused" supports only weight_dtype 0.

        Raises:
            ValueError, TypeError: an argument is wrong; the message names it.
            SessionError: the engine is already realized, and stays as it is.
            TinyNNMemoryError: there is not enough memory.
            After any other error than SessionError the engine is closed and can be realized again.
        """
        options = RecipeOptions(
            t_seq, t_batch, weight_dtype, untied, qkv_bias, seed, init_scale, init_stream, n_threads, layout
        )
        self.realize(cfg, options, oversubscribe=oversubscribe)

    def realize(
        self,
        cfg: SmolLM2Config,
        options: RecipeOptions,
        weights: Mapping[str, npt.ArrayLike] | None = None,
        *,
        only: Collection[str] | None = None,
        oversubscribe: bool = False,
    ) -> None:
        """Declare the model on a new session, with the given weights. If weights is None, draw them as `options`
        describes. only: the names of the weights that are trained. Default: all, except a frozen embedding.

        If cfg is a ModelShape, its variants untied and qkv_bias apply too, even if they are False in options.

        Raises the errors of `realize_for_random_init`.
        """
        self._require_unrealized()
        if weights is not None:
            weights = weights_by_name(weights)
        shape = _checked(cfg, options)

        def fill(parameters: Parameters) -> None:
            if weights is None:
                spread = Spread(options.init_scale, options.embedding_std)
                parameters.draw(make_stream(options.init_stream, options.seed), spread)
            else:
                parameters.upload_all(weights)

        tuning = EVERYTHING if only is None else Tuning(only=frozenset(only))
        self._declare(shape, options, tuning, fill, oversubscribe)

    # ---- weights of a base ----

    def realize_with_adapter(
        self,
        base: object,
        spec: AdapterSpec,
        options: RecipeOptions,
        adapter: Mapping[str, npt.ArrayLike] | None = None,
        *,
        oversubscribe: bool = False,
    ) -> None:
        """Declare a frozen base in the fused layout, with a trained adapter on its matrices.

        Args:
            base: a GgufBase, whose weights are mapped from its file and keep their types, or a TrainedModel.
            spec: rank, scale and targets of the adapter.
            options: t_seq, t_batch, n_threads and precision are used; seed applies to A. layout must be "fused".
            adapter: the values of all matrices by name, as in `TrainedAdapter.tensors`. None: A is drawn from the seed
                and B is zero, as in PEFT.

        Raises the errors of `realize_for_random_init`, and MappedFileError if the file of the base was changed.
        """
        self._require_unrealized()
        instance_of("spec", spec, AdapterSpec)
        base = base_of(base)
        shape = _checked(base.shape, options)
        if options.layout != "fused":
            raise TinyNNValueError(f'layout must be "fused" for an adapter on a frozen base, got {options.layout!r}')
        names = [weight.name for weight in spec.weights(shape)]
        values = spec.initial(shape, options.seed) if adapter is None else weights_by_name(adapter)
        same_weights(values, names)
        stored = base.stored(copy=False, in_order=True)

        def fill(parameters: Parameters) -> None:
            parameters.fill(values_of(base, stored))
            for name in names:
                parameters.upload(name, values[name])

        self._declare(shape, options, Tuning(spec=spec, trains_adapters=True), fill, oversubscribe, stored)

    def realize_for_full_finetune(
        self,
        gguf: object,
        cfg: SmolLM2Config,
        t_seq: int,
        untied: bool,
        qkv_bias: bool,
        *,
        t_batch: int = 1,
        n_threads: int | None = None,
        oversubscribe: bool = False,
        layout: str = "per_head",
    ) -> None:
        """Declare the model with the weights of a base, as F32. Needs `enable_full_finetune`.

        Args:
            gguf: the base, a GgufBase (an open GGUF file, of any type) or a TrainedModel.
            cfg, untied, qkv_bias: the shape of the base; only cfg.ctx may differ from it.
            t_seq, t_batch, n_threads, oversubscribe, layout: as for `realize_for_random_init`.

        Raises the errors of `realize_for_random_init`, and SessionError without `enable_full_finetune`.
        """
        self._require_unrealized()
        if not self._tuning.layers:
            raise SessionError("full fine-tuning is not enabled: call enable_full_finetune() first")
        if self._tuning.q_rank:
            raise SessionError(
                "full fine-tuning cannot have adapters: use either enable_full_finetune or enable_lora_q"
            )
        options = RecipeOptions(t_seq, t_batch, TNN_F32, untied, qkv_bias, n_threads=n_threads, layout=layout)
        base = base_of(gguf)
        shape = checked_shape(base, _checked(cfg, options))
        self._declare(shape, options, self._tuning, lambda parameters: parameters.fill(base.values), oversubscribe)

    def realize_for_mmap(
        self,
        gguf: object,
        cfg: SmolLM2Config,
        t_seq: int,
        untied: bool,
        qkv_bias: bool,
        *,
        t_batch: int = 1,
        n_threads: int | None = None,
        oversubscribe: bool = False,
    ) -> None:
        """Declare the model on a frozen base whose weights are mapped from its file, in the types of the file.

        Args:
            gguf: the base, a GgufBase. Its matrices are F32, F16, BF16 or of a quantized type that ggml multiplies.
                Vectors of another type than F32 are copied as F32.
            cfg, untied, qkv_bias, t_seq, t_batch, n_threads, oversubscribe: as for `realize_for_full_finetune`.

        Raises the errors of `realize_for_full_finetune`, SessionError after `enable_full_finetune`, and MappedFileError
        if the file was changed. If the base has interleaved rows, the rows of q and k and of the matrices B of their
        adapters are in the order of the file.
        """
        options = RecipeOptions(t_seq, t_batch, TNN_F32, untied, qkv_bias, n_threads=n_threads)
        self._realize_on_frozen("realize_for_mmap", gguf, cfg, options, oversubscribe, copy=False)

    def realize_for_q8_copy(
        self,
        gguf: object,
        cfg: SmolLM2Config,
        t_seq: int,
        untied: bool,
        qkv_bias: bool,
        *,
        t_batch: int = 1,
        n_threads: int | None = None,
        oversubscribe: bool = False,
    ) -> None:
        """Declare the model on an in-memory copy of a frozen base. The weights keep their types.

        Args:
            gguf: the base, a GgufBase or a TrainedModel (whose weights are F32).
            The other arguments are as for `realize_for_full_finetune`.

        Raises the errors of `realize_for_mmap`.
        """
        options = RecipeOptions(t_seq, t_batch, TNN_F32, untied, qkv_bias, n_threads=n_threads)
        self._realize_on_frozen("realize_for_q8_copy", gguf, cfg, options, oversubscribe, copy=True)

    def _realize_on_frozen(
        self,
        call: str,
        gguf: object,
        cfg: SmolLM2Config,
        options: RecipeOptions,
        oversubscribe: bool,
        *,
        copy: bool,
    ) -> None:
        self._require_unrealized()
        if self._tuning.layers or self._tuning.globals_too:
            raise SessionError(
                f"{call} freezes the base, so it cannot be used for full fine-tuning; call "
                "realize_for_full_finetune instead"
            )
        base = base_of(gguf)
        shape = checked_shape(base, _checked(cfg, options))
        if self._tuning.q_rank > shape.head_dim:
            raise TinyNNValueError(f"rank must be from 1 to head_dim = {shape.head_dim}, got {self._tuning.q_rank}")
        stored = base.stored(copy)
        if stored is None and not copy:
            raise TinyNNTypeError(f"gguf must be a GgufBase, because {call} maps a file, got {kind_of(gguf)}")
        values = values_of(base, stored)
        self._declare(shape, options, self._tuning, lambda parameters: parameters.fill(values), oversubscribe, stored)

    # ---- values that are uploaded after realize ----

    def upload_lora_q_init(self, seed: int, init_scale: float) -> None:
        """Set the adapters to their initial values: A to normally distributed numbers, B to 0.

        seed: random seed. All matrices A are drawn from one stream, layer by layer and head by head.
        init_scale: standard deviation of A.

        Raises TinyNNValueError or TinyNNTypeError for a wrong argument, or SessionError before realize or without
        adapters.
        """
        names = list(self._adapters())
        parameters, values = self._require_layout().parameters, initial_adapters(seed, init_scale)
        for name in names:
            parameters.upload(name, values(parameters.by_name[name].weight))

    def download_lora_q(self) -> dict[str, FloatArray]:
        """Return the adapters by name, float32. Raises SessionError before realize or without adapters."""
        return {name: self.download_weight(name) for name in self._adapters()}

    def upload_lora_q(self, adapters: Mapping[str, npt.ArrayLike]) -> None:
        """Set all adapters, for example to those that `download_lora_q` returned.

        Raises TinyNNValueError, before anything changes, if an adapter is missing, unknown or of another shape (because
        it belongs to another base or has another rank), or contains a number that is not finite. Raises SessionError as
        `download_lora_q` does.
        """
        own, given = self._adapters(), weights_by_name(adapters)
        same_weights(given, own)
        checked = {}
        for name, size in own.items():
            values = checked[name] = float_array(name, given[name], math.prod(size))
            if values.shape != size:
                raise TinyNNValueError(
                    f"{name} must have shape {size}, got {values.shape}: the adapter belongs to another base, or has "
                    "another rank"
                )
            if (wrong := not_finite(values)) is not None:
                raise TinyNNValueError(f"{name} must contain only finite numbers, got {wrong}")
        for name, values in checked.items():
            self.upload_weight(name, values)

    def _adapters(self) -> dict[str, tuple[int, ...]]:
        """Return the sizes of the adapters by name."""
        weights = self._require_layout().parameters.by_name
        sizes = {name: one.weight.size for name, one in weights.items() if one.weight.adapter}
        if not sizes:
            raise SessionError("the model has no adapters: call enable_lora_q before it is realized")
        return sizes

    def upload_donor(self, buf: npt.ArrayLike, n: int) -> None:
        """Set the frozen embedding of a projection lens.

        buf: n = vocab * donor_d_in finite numbers, row after row.

        Raises TinyNNValueError or TinyNNTypeError for a wrong argument, or SessionError before realize or without a
        lens.
        """
        layout = self._require_layout()
        vocab, width = layout.shape.vocab, layout.shape.donor_d_in
        if not width:
            raise SessionError("the model has no projection lens: donor_d_in is 0")
        if integer("n", n, 0) != vocab * width:
            raise TinyNNValueError(f"n must be vocab * donor_d_in = {vocab} * {width} = {vocab * width}, got {n}")
        values = float_array("buf", buf, vocab * width)
        if values.size != n:
            raise TinyNNValueError(f"buf must have n = {n} numbers, got {values.size}")
        layout.parameters.upload(EMBEDDING, values.reshape(vocab, width))

    # ---- steps that several realize calls share ----

    def _require_unrealized(self) -> None:
        if self.realized:
            raise SessionError("the engine is already realized: call close() first, or make a new engine")

    def _declare(
        self,
        shape: ModelShape,
        options: RecipeOptions,
        tuning: Tuning,
        fill: Callable[[Parameters], None],
        oversubscribe: bool,
        stored: StoredWeights | None = None,
    ) -> None:
        """Declare the model on a new session and fill its weights. An error leaves the engine closed."""
        session = Session(0, options.n_threads, oversubscribe)
        try:
            self._layout = BY_NAME[options.layout](session, shape, replace(options), tuning, stored)
            fill(self._layout.parameters)
        except BaseException:
            self._layout = None
            session.close()
            raise


def _checked(cfg: SmolLM2Config, options: RecipeOptions) -> ModelShape:
    """Return the shape of the model, after all checks of options."""
    instance_of("options", options, RecipeOptions)
    options.validate()
    shape = ModelShape.of(cfg, untied=options.untied or None, qkv_bias=options.qkv_bias or None)
    if options.t_seq > shape.ctx:
        raise TinyNNValueError(f"t_seq must be at most cfg.ctx = {shape.ctx}, got {options.t_seq}")
    BY_NAME[options.layout].check_weight_dtype(options.weight_dtype)
    return shape
