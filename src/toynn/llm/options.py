"""RecipeOptions: sequence length, batch size, type of the weights, seed, threads and layout of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from toynn.arguments import INT31_MAX, boolean, integer, not_negative, one_of, positive
from toynn.errors import TinyNNValueError
from toynn.initialised import Initialised
from toynn.model.spread import EMBEDDING_STD
from toynn.model.weights import NO_OPTIMIZER, OPTIMIZERS

WEIGHT_DTYPES = {0: "F32", 1: "F16", 30: "BF16"}  # the keys are ggml's ids of the types
INIT_STREAMS = ("lcg31", "xorshift64")
LAYOUTS = ("per_head", "fused")
PRECISIONS = ("f32", "bf16")
MOMENT_TYPES = ("f32", "bf16")


@dataclass(slots=True)
class RecipeOptions(Initialised):
    """The options of `FromScratch.realize`. The caller can assign them one by one. `validate` checks them when a model
    is realized.

    t_seq: length of a sequence in tokens. It must be set: the default 0 is refused.
    t_batch: number of sequences in a step.
    weight_dtype: type to which the matrices of the layers are rounded where the graph uses them: 0 = F32 (unchanged),
        1 = F16, 30 = BF16. The weights themselves stay F32.
    untied: the output matrix is a weight of its own, not the embedding.
    qkv_bias: the projections q, k and v have biases.
    seed: random seed of the initial weights.
    init_scale: factor of the standard deviation of the initial matrices of the layers. For an adapter: the standard
        deviation of A.
    init_stream: the random generator of the initial weights. "xorshift64" is the generator with which the older
        curves of the Ruby project toy were recorded.
    n_threads: number of threads. None: the number of cores that this process may use. Results never depend on this
        number.
    layout: "per_head" is the graph of the Ruby project toy, with one weight and one attention for each head, on ggml's
        operators. "fused" is the same model with one weight for each projection, on the shim's kernels. Use "fused" for
        training. Both layouts start from the same bits and compute the same numbers within rounding.
    optimizer: "adamw" updates all weights by AdamW. "muon" updates the matrices of the layers by Muon, which keeps one
        moment for each matrix instead of two, and all other weights by AdamW. Fused layout only. "none": the model has
        no moments, and its training graph computes only gradients (`LlamaSeqEngine.add_gradients`). Fused layout only.
    precision: "f32", or "bf16" to round the operands of the products with weight matrices to bfloat16, forward and
        backward. The sums of these products, the weights, moments, norms, attention and the loss stay f32. The products
        with the matrices of an adapter stay f32 too. Fused layout only.
    z_loss: coefficient of the z-loss, the mean of log(sum(exp(logits)))^2 over the targets that count. Its gradient is
        added to the gradient of the loss. The reported loss does not contain it. Fused layout only.
    moments: "f32", or "bf16" to store the moments of matrices in bfloat16, with stochastic rounding. The moments of
        norms and biases stay f32. `LlamaSeqEngine.train_step` then needs the number of the step. Fused layout only.
    embedding_std: standard deviation of the initial embedding, and of the initial output of an untied model.
    """

    t_seq: int = 0
    t_batch: int = 1
    weight_dtype: int = 0
    untied: bool = False
    qkv_bias: bool = False
    seed: int = 0
    init_scale: float = 1.0
    init_stream: str = "lcg31"
    n_threads: int | None = None
    layout: str = "per_head"
    optimizer: str = "adamw"
    precision: str = "f32"
    z_loss: float = 0.0
    moments: str = "f32"
    embedding_std: float = EMBEDDING_STD

    def __post_init__(self) -> None:
        self._check_each()

    def validate(self) -> None:
        """Raise TinyNNValueError or TinyNNTypeError if these options cannot be realized."""
        self._check_each()
        if self.t_seq == 0:
            raise TinyNNValueError("t_seq must be the length of a sequence in tokens, at least 1, got 0")
        if self.t_seq * self.t_batch > INT31_MAX:
            raise TinyNNValueError(f"t_seq * t_batch must be below 2^31, got {self.t_seq} * {self.t_batch}")
        if self.optimizer != "adamw" and self.layout != "fused":
            raise TinyNNValueError(f"optimizer={self.optimizer!r} needs layout='fused', got layout={self.layout!r}")
        if self.precision == "bf16" and self.layout != "fused":
            raise TinyNNValueError(f"precision='bf16' needs layout='fused', got layout={self.layout!r}")
        if self.moments == "bf16" and self.layout != "fused":
            raise TinyNNValueError(f"moments='bf16' needs layout='fused', got layout={self.layout!r}")
        if self.z_loss != 0 and self.layout != "fused":
            raise TinyNNValueError(f"z_loss={self.z_loss:g} needs layout='fused', got layout={self.layout!r}")

    def _check_each(self) -> None:
        self.t_seq = integer("t_seq", self.t_seq, 0)
        self.t_batch = integer("t_batch", self.t_batch, 1)
        self.weight_dtype = integer("weight_dtype", self.weight_dtype, 0)
        if self.weight_dtype not in WEIGHT_DTYPES:
            known = ", ".join(f"{number} ({name})" for number, name in WEIGHT_DTYPES.items())
            raise TinyNNValueError(f"weight_dtype must be one of {known}, got {self.weight_dtype}")
        self.untied = boolean("untied", self.untied)
        self.qkv_bias = boolean("qkv_bias", self.qkv_bias)
        self.seed = integer("seed", self.seed, -(2**63), 2**63 - 1)
        self.init_scale = positive("init_scale", self.init_scale)
        self.init_stream = one_of("init_stream", self.init_stream, INIT_STREAMS)
        self.layout = one_of("layout", self.layout, LAYOUTS)
        self.optimizer = one_of("optimizer", self.optimizer, (*OPTIMIZERS, NO_OPTIMIZER))
        self.precision = one_of("precision", self.precision, PRECISIONS)
        self.z_loss = not_negative("z_loss", self.z_loss)
        self.moments = one_of("moments", self.moments, MOMENT_TYPES)
        self.embedding_std = positive("embedding_std", self.embedding_std)
        if self.n_threads is not None:
            self.n_threads = integer("n_threads", self.n_threads, 1)
