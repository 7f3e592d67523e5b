"""Suggest a key of the configuration for an unknown key, for example for the name of a setting in another program."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

# For each key, the names of the same setting in nanoGPT, transformers, TRL, mlx-lm, litgpt, llama.cpp and PyTorch.
SYNONYMS = {
    "optimizer.kind": "optim optimizer_type optimizer_name",
    "optimizer.muon_lr": "muon_learning_rate matrix_lr hidden_lr",
    "optimizer.muon_momentum": "momentum",
    "optimizer.lr": "learning_rate max_lr peak_lr base_lr max_learning_rate",
    "optimizer.beta1": "adam_beta1 beta_1 b1",
    "optimizer.beta2": "adam_beta2 beta_2 b2",
    "optimizer.eps": "epsilon adam_epsilon adam_eps",
    "optimizer.weight_decay": "wd decay_rate adamw_weight_decay l2",
    "optimizer.clip": "grad_clip gradient_clip max_grad_norm clip_grad_norm gradient_clipping clip_norm max_norm",
    "schedule.kind": "scheduler lr_scheduler lr_scheduler_type lr_schedule schedule_type decay_type",
    "schedule.warmup": "warmup_steps warmup_iters num_warmup_steps lr_warmup_steps",
    "schedule.decay": "decay_steps cooldown cooldown_steps lr_decay_iters",
    "schedule.min_ratio": "min_lr min_lr_ratio final_lr lr_min",
    "train.steps": "max_steps num_steps n_steps max_iters iters iterations num_iterations total_steps train_steps",
    "train.epochs": "epoch num_epochs n_epochs max_epochs num_train_epochs",
    "train.batch": "batch_size bs micro_batch_size device_batch_size per_device_train_batch_size train_batch_size",
    "train.accumulate": "gradient_accumulation_steps grad_accum grad_accum_steps grad_accumulation_steps accumulation",
    "train.t_seq": "seq_len seq_length sequence_length max_seq_length block_size window window_size max_length",
    "train.precision": "dtype mixed_precision amp autocast bfloat16 use_bf16",
    "train.only": "trainable train_only unfreeze modules_to_save",
    "train.objective": "task trainer training_type",
    "dpo.beta": "kl_beta dpo_beta pref_beta",
    "dpo.loss": "loss_type dpo_loss pref_loss",
    "dpo.label_smoothing": "dpo_label_smoothing",
    "adapter.rank": "r lora_r lora_rank",
    "adapter.alpha": "lora_alpha lora_scale",
    "adapter.rslora": "use_rslora",
    "adapter.targets": "target_modules lora_targets",
    "adapter.init_seed": "lora_seed",
    "train.seed": "random_seed rng_seed manual_seed",
    "data.document_attention": "packing sample_packing block_cross_attention intra_document_masking document_mask",
    "data.batching": "group_by_length length_grouped_sampling sort_by_length bucket_by_length",
    "evaluation.every": "eval_every eval_interval eval_steps steps_per_eval val_interval eval_freq",
    "evaluation.windows": "eval_iters eval_batches val_batches max_eval_samples",
    "evaluation.patience": "early_stopping early_stopping_patience",
    "evaluation.min_delta": "early_stopping_threshold early_stopping_min_delta",
    "evaluation.prompts": "sample_prompts eval_prompts prompt start",
    "evaluation.sample_tokens": "max_new_tokens max_tokens sample_length",
    "evaluation.sample_temperature": "temperature sampling_temperature",
    "checkpoint.every": "save_every save_interval save_steps checkpoint_every checkpoint_interval save_freq",
    "checkpoint.keep_last": "save_total_limit keep max_to_keep keep_last_n",
    "checkpoint.keep_best": "load_best_model_at_end save_best",
    "model.d_model": "n_embd hidden_size dim embed_dim d_embd model_dim embedding_size width",
    "model.n_heads": "n_head num_heads num_attention_heads heads",
    "model.n_kv": "n_kv_heads num_kv_heads num_key_value_heads n_head_kv n_query_groups",
    "model.d_ff": "intermediate_size ffn_dim hidden_dim ffn_hidden_size mlp_dim n_ff",
    "model.n_layers": "n_layer num_layers num_hidden_layers layers depth n_block",
    "model.ctx": "context context_length n_ctx max_position_embeddings max_seq_len n_positions",
    "model.rope_base": "rope_theta rope_freq_base theta",
    "model.rms_eps": "rms_norm_eps norm_eps layer_norm_eps layer_norm_epsilon",
    "model.untied": "tie_word_embeddings tie_embeddings tied weight_tying",
    "model.qkv_bias": "attention_bias attn_bias bias",
    "model.architecture": "model_type arch architectures",
    "model.qk_norm": "use_qk_norm qk_layernorm q_norm k_norm",
    "model.no_rope_interval": "no_rope_layer_interval no_rope_layers nope_interval",
    "model.sliding_window": "attention_window swa window_left local_window",
    "model.global_interval": "sliding_window_pattern swa_pattern layer_types",
    "model.local_rope_base": "rope_local_base_freq rope_freq_base_swa local_rope_theta",
    "model.query_pre_attn_scalar": "attention_scale attn_scale query_scale softmax_scale",
    "model.init_scale": "initializer_range init_std",
}
# The size of the vocabulary is not a key, because it comes from the data.
VOCABULARY = frozenset({"vocab", "vocab_size", "n_vocab", "padded_vocab_size", "vocabulary"})
NO_VOCABULARY_KEY = (
    "the size of the vocabulary cannot be set for training, because it comes from the data (`toynn prepare`)"
)
# The number of threads is not a key, because it does not change the result of a run.
THREADS = frozenset({"threads", "n_threads", "num_threads", "nthreads"})
_KEY_OF = {synonym: key for key, synonyms in SYNONYMS.items() for synonym in synonyms.split()}


def similar_key(name: str, known: Sequence[str]) -> str | None:
    """Return the known key "section.key" that the user probably means by a name, or None.

    name: a name with or without a section. The section may be wrong. Upper case and hyphens make no difference.
    """
    plain = name.strip().lower().replace("-", "_")
    section, _, last = plain.rpartition(".")
    if plain in known:
        return plain
    inside = [key for key in known if key.startswith(f"{section}.")] if section else []
    candidates: list[str] = []
    if last in _KEY_OF:
        candidates.append(_KEY_OF[last])
    if section and (close := difflib.get_close_matches(last, [key[len(section) + 1 :] for key in inside], n=1)):
        candidates.append(f"{section}.{close[0]}")
    candidates += [key for key in known if key.count(".") == 1 and key.endswith(f".{last}")]
    if section and not inside:
        candidates += difflib.get_close_matches(plain, known, n=1)
    if not section and not candidates:
        sections = {key.partition(".")[0] for key in known}
        if difflib.get_close_matches(plain, sections, n=1):
            return None  # the name is similar to a section, not to a key
        short = {key.rpartition(".")[2]: key for key in known if key.count(".") == 1}
        candidates += [short[one] for one in difflib.get_close_matches(last, short, n=1)]
    return next((key for key in candidates if key in known), None)
