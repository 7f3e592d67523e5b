"""SeqNames: the attributes of an engine under the names that they have in the Ruby project toy."""

from __future__ import annotations

from dataclasses import dataclass

from toynn.initialised import Initialised
from toynn.llm.archs import LlamaArch
from toynn.llm.engine.realized_model import RealizedModel
from toynn.llm.parameters import WeightsByKey
from toynn.model.config import RopeScaling
from toynn.tinynn import Tensor


@dataclass(frozen=True)
class SeqBlock(Initialised):
    """A layer: its weights, and its activations in the current graph.

    rn1, rn2: the norms before attention and before the feed-forward part. w_q, w_k, w_v and their biases b_q, b_k, b_v:
    one for each head, or in the fused layout one for all heads. The biases are empty in a model without biases.
    """

    t_seq_rn1_gamma: Tensor
    t_seq_rn2_gamma: Tensor
    t_seq_w_q: list[Tensor]
    t_seq_w_k: list[Tensor]
    t_seq_w_v: list[Tensor]
    t_seq_b_q: list[Tensor]
    t_seq_b_k: list[Tensor]
    t_seq_b_v: list[Tensor]
    t_seq_w_o: Tensor
    t_seq_w_gate: Tensor
    t_seq_w_up: Tensor
    t_seq_w_down: Tensor
    tap_attn_norm: Tensor
    tap_ffn_out: Tensor | None
    tap_resid_post: Tensor

    @property
    def ffn_out(self) -> Tensor | None:
        """`tap_ffn_out`: the result of the feed-forward part; None in the fused layout, where a kernel adds it to x."""
        return self.tap_ffn_out

    @property
    def resid_post(self) -> Tensor:
        """`tap_resid_post`: the result of the layer."""
        return self.tap_resid_post


class SeqNames(RealizedModel):
    """The attributes that the engine of the Ruby project toy has (seq_*, t_seq_*).

    Before realize and after close, all of them except seq_realized raise SessionError.

    If there is no graph yet, reading an attribute of the graph builds the forward graph.
    """

    # ---- the model's shape ----

    @property
    def seq_realized(self) -> bool:
        """True if the engine has a model."""
        return self.realized

    @property
    def seq_arch(self) -> LlamaArch:
        """The model's forward graph as an object. Its `build` needs the per_head layout."""
        layout = self._require_layout()
        return LlamaArch(layout.parameters, layout.shape)

    @property
    def seq_d_model(self) -> int:
        return self.cfg.d_model

    @property
    def seq_d_ff(self) -> int:
        return self.cfg.d_ff

    @property
    def seq_n_heads(self) -> int:
        return self.cfg.n_heads

    @property
    def seq_n_kv(self) -> int:
        return self.cfg.n_kv

    @property
    def seq_d_head(self) -> int:
        return self.cfg.head_dim

    @property
    def seq_group_size(self) -> int:
        """The number of query heads that share a KV head."""
        return self.cfg.n_heads // self.cfg.n_kv

    @property
    def seq_n_layers(self) -> int:
        return self.cfg.n_layers

    @property
    def seq_vocab_size(self) -> int:
        return self.cfg.vocab

    @property
    def seq_rope_base(self) -> float:
        return self.cfg.rope_base

    @property
    def seq_rope_scaling(self) -> RopeScaling:
        return self.cfg.rope_scaling

    @property
    def seq_rms_eps(self) -> float:
        return self.cfg.rms_eps

    @property
    def seq_weight_dtype(self) -> int:
        """ggml's number of the type of the matrices: 0 = F32, 1 = F16, 30 = BF16."""
        return self._require_layout().options.weight_dtype

    @property
    def seq_has_untied_output(self) -> bool:
        return self.cfg.untied

    @property
    def seq_has_qkv_bias(self) -> bool:
        return self.cfg.qkv_bias

    @property
    def seq_donor_d_in(self) -> int:
        """The width of the frozen embedding before the projection lens, or 0 without a lens."""
        return self.cfg.donor_d_in

    # ---- weights outside the layers ----

    @property
    def t_seq_token_embed(self) -> Tensor:
        return self._tree().embedding.weight

    @property
    def t_seq_w_proj(self) -> Tensor | None:
        """The projection lens; None in a model without a lens."""
        tree = self._tree()
        return tree.lens.weight if "lens" in tree else None

    @property
    def t_seq_final_norm_gamma(self) -> Tensor:
        return self._tree().output_norm.weight

    @property
    def t_seq_output(self) -> Tensor | None:
        """The output matrix; None in a model whose output matrix is the embedding."""
        tree = self._tree()
        return tree.output.weight if "output" in tree else None

    @property
    def t_seq_rope_freq_factors(self) -> Tensor | None:
        """The divisors of RoPE's angles, f32 ne=[d_head/2]; None if the scaling needs none."""
        return self._require_layout().rope_freq_factors

    # ---- activations of the current graph ----

    @property
    def t_seq_x_embed(self) -> Tensor:
        """The rows of the embedding, ne=[d_model, T*B], or ne=[donor_d_in, T*B] before a lens."""
        return self._built_graph().taps["embed"]

    @property
    def t_seq_x_final(self) -> Tensor:
        """The result of the last norm, ne=[d_model, T*B]."""
        return self._built_graph().taps["final_norm"]

    @property
    def seq_blocks_ffi(self) -> list[SeqBlock]:
        """The layers, with their weights and their activations."""
        taps, layers = self._built_graph().taps, self._tree().layers
        return [
            SeqBlock(
                t_seq_rn1_gamma=layer.attn_norm.weight,
                t_seq_rn2_gamma=layer.ffn_norm.weight,
                t_seq_w_q=_weights(layer, "q"),
                t_seq_w_k=_weights(layer, "k"),
                t_seq_w_v=_weights(layer, "v"),
                t_seq_b_q=_biases(layer, "q"),
                t_seq_b_k=_biases(layer, "k"),
                t_seq_b_v=_biases(layer, "v"),
                t_seq_w_o=layer.o.weight,
                t_seq_w_gate=layer.gate.weight,
                t_seq_w_up=layer.up.weight,
                t_seq_w_down=layer.down.weight,
                tap_attn_norm=taps[f"blk.{i}.attn_norm"],
                tap_ffn_out=taps.get(f"blk.{i}.ffn"),
                tap_resid_post=taps[f"blk.{i}.residual"],
            )
            for i, layer in enumerate(layers)
        ]

    def _tree(self) -> WeightsByKey:
        return self._require_layout().parameters.tree


def _weights(layer: WeightsByKey, key: str) -> list[Tensor]:
    return [one.weight for one in layer.heads(key)]


def _biases(layer: WeightsByKey, key: str) -> list[Tensor]:
    return [one.bias for one in layer.heads(key) if one.bias is not None]
