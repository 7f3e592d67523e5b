"""The C interface of the real llama.cpp in the wheel xllamacpp, called through cffi.

The wheel's extension contains all of llama.cpp and exports the functions of `llama.h`. Its Python classes are not used,
because they do not return logits. The declarations below belong to the build of llama.cpp in the pinned version of the
wheel. Structs are passed by value, so a wrong declaration would read wrong bytes. Therefore `_checked` compares the
default values with those of the header, and fails if the version differs.
"""

from __future__ import annotations

import functools
import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from cffi import FFI

VERSION = "2026.10.11549"  # version of the wheel, also in pyproject.toml; it contains llama.cpp build 11549

_F32, _NO_FLASH_ATTENTION = 0, 0
_DECLARATIONS = """
typedef int32_t llama_token;
struct llama_model_params {
    void *devices, *tensor_buft_overrides;
    int32_t n_gpu_layers;
    int split_mode, load_mode, lazy_mode;
    int32_t main_gpu;
    void *tensor_split, *progress_callback, *progress_callback_user_data, *kv_overrides;
    bool vocab_only, check_tensors, use_extra_bufts, no_host, no_alloc, load_mtp;
};
struct llama_context_params {
    uint32_t n_ctx, n_batch, n_ubatch, n_seq_max, n_rs_seq, n_outputs_max, n_outputs_max_per_seq;
    int32_t n_threads, n_threads_batch;
    int ctx_type, rope_scaling_type, pooling_type, attention_type, flash_attn_type;
    float rope_freq_base, rope_freq_scale, yarn_ext_factor, yarn_attn_factor, yarn_beta_fast, yarn_beta_slow;
    uint32_t yarn_orig_ctx;
    float defrag_thold;
    void *cb_eval, *cb_eval_user_data;
    int type_k, type_v;
    size_t moe_cache_size;
    void *abort_callback, *abort_callback_data;
    bool embeddings, offload_kqv, no_perf, op_offload, swa_full, kv_unified;
    void *samplers;
    size_t n_samplers;
    void *ctx_other;
};
typedef struct llama_batch {
    int32_t n_tokens;
    llama_token *token;
    float *embd;
    int32_t *pos;
    int32_t *n_seq_id;
    int32_t **seq_id;
    int8_t *logits;
} llama_batch;
typedef struct llama_model llama_model;
typedef struct llama_context llama_context;
typedef struct llama_vocab llama_vocab;
struct llama_model_params llama_model_default_params(void);
struct llama_context_params llama_context_default_params(void);
void llama_backend_init(void);
void llama_log_set(void (*callback)(int level, const char *text, void *data), void *data);
llama_model *llama_model_load_from_file(const char *path, struct llama_model_params params);
void llama_model_free(llama_model *model);
llama_context *llama_init_from_model(llama_model *model, struct llama_context_params params);
void llama_free(llama_context *context);
const llama_vocab *llama_model_get_vocab(const llama_model *model);
int32_t llama_model_desc(const llama_model *model, char *buf, size_t size);
int32_t llama_model_meta_val_str(const llama_model *model, const char *key, char *buf, size_t size);
int32_t llama_vocab_n_tokens(const llama_vocab *vocab);
llama_token llama_vocab_bos(const llama_vocab *vocab);
llama_token llama_vocab_eos(const llama_vocab *vocab);
bool llama_vocab_is_eog(const llama_vocab *vocab, llama_token token);
bool llama_vocab_get_add_bos(const llama_vocab *vocab);
llama_batch llama_batch_init(int32_t n_tokens, int32_t embd, int32_t n_seq_max);
void llama_batch_free(llama_batch batch);
int32_t llama_decode(llama_context *context, llama_batch batch);
float *llama_get_logits_ith(llama_context *context, int32_t i);
int32_t llama_tokenize(const llama_vocab *vocab, const char *text, int32_t text_len, llama_token *tokens,
                       int32_t n_tokens_max, bool add_special, bool parse_special);
size_t ggml_quantize_chunk(int type, const float *src, void *dst, int64_t start, int64_t nrows, int64_t n_per_row,
                           const float *imatrix);
typedef struct llama_adapter_lora llama_adapter_lora;
llama_adapter_lora *llama_adapter_lora_init(llama_model *model, const char *path);
int32_t llama_set_adapters_lora(llama_context *context, llama_adapter_lora **adapters, size_t n, float *scales);
int32_t llama_token_to_piece(const llama_vocab *vocab, llama_token token, char *buf, int32_t length, int32_t lstrip,
                             bool special);
"""
_ffi: Any = FFI()
_ffi.cdef(_DECLARATIONS)
_log: list[str] = []


@_ffi.callback("void(int, const char *, void *)")  # type: ignore[untyped-decorator]
def _logged(level: int, text: Any, data: Any) -> None:
    _log.append(_ffi.string(text).decode("utf-8", "replace"))


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    """Load llama.cpp, check its build, and return it."""
    if (found := version("xllamacpp")) != VERSION:
        raise AssertionError(f"these declarations are of xllamacpp {VERSION}, installed is {found}")
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise AssertionError("xllamacpp is not installed")
    lib = _ffi.dlopen(str(next(Path(spec.origin).parent.glob("xllamacpp*.so"))))
    model, context = lib.llama_model_default_params(), lib.llama_context_default_params()
    found_defaults = (
        model.n_gpu_layers, model.split_mode, model.vocab_only, model.use_extra_bufts, context.n_ctx, context.n_batch,
        context.n_ubatch, context.n_threads, context.rope_scaling_type, context.flash_attn_type,
        context.yarn_ext_factor, context.type_k, context.type_v, context.offload_kqv, context.n_samplers,
    )  # fmt: skip
    if found_defaults != (-1, 1, False, True, 512, 2048, 512, 4, -1, -1, -1.0, 1, 1, True, 0):
        raise AssertionError(f"the declarations are not those of this llama.cpp: {found_defaults}")
    lib.llama_log_set(_logged, _ffi.NULL)
    lib.llama_backend_init()
    return lib


def quantized(kind: int, values: npt.NDArray[np.float32], nbytes: int) -> npt.NDArray[np.uint8]:
    """Return the rows quantized to this type by the ggml of llama.cpp, as bytes."""
    stored = np.empty(nbytes, np.uint8)
    source, target = _ffi.from_buffer("float[]", values), _ffi.from_buffer(stored)
    written = _library().ggml_quantize_chunk(kind, source, target, 0, *values.shape, _ffi.NULL)
    assert written == nbytes
    return stored


class LlamaCpp:
    """A GGUF file that is loaded in llama.cpp.

    adapter: a GGUF adapter that is applied with scale 1.
    exact: compute as exactly as llama.cpp can: keys and values are cached in f32 instead of f16, flash attention is
        off, and weights are not repacked. So if the weights are f32, everything is computed in f32. False: the
        default settings of llama.cpp, which are faster.
    """

    def __init__(
        self, path: Path, n_ctx: int = 512, adapter: Path | None = None, *, exact: bool = True, n_threads: int = 1
    ) -> None:
        self._lib = lib = _library()
        _log.clear()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        if exact:
            params.check_tensors = True
            params.use_extra_bufts = False
        self._model = lib.llama_model_load_from_file(os.fsencode(path), params)
        if self._model == _ffi.NULL:
            raise AssertionError(f"llama.cpp does not load {path}:\n{''.join(_log)[-2000:]}")
        self.log = "".join(_log)
        self.vocab = lib.llama_model_get_vocab(self._model)
        wanted = lib.llama_context_default_params()
        wanted.n_ctx = wanted.n_batch = wanted.n_ubatch = n_ctx
        wanted.n_threads = wanted.n_threads_batch = n_threads
        if exact:
            wanted.type_k = wanted.type_v = _F32
            wanted.flash_attn_type = _NO_FLASH_ATTENTION
        wanted.n_outputs_max = n_ctx
        wanted.n_outputs_max_per_seq = n_ctx
        self._context = lib.llama_init_from_model(self._model, wanted)
        if self._context == _ffi.NULL:
            raise AssertionError(f"llama.cpp makes no context for {path}:\n{''.join(_log)[-2000:]}")
        if adapter is not None:
            self._apply(adapter)
        self._n_past = 0

    def _apply(self, path: Path) -> None:
        adapter = self._lib.llama_adapter_lora_init(self._model, os.fsencode(path))  # the model frees the adapter
        if adapter == _ffi.NULL:
            self.close()
            raise AssertionError(f"llama.cpp does not load the adapter {path}:\n{''.join(_log)[-2000:]}")
        code = self._lib.llama_set_adapters_lora(
            self._context, _ffi.new("llama_adapter_lora *[]", [adapter]), 1, _ffi.new("float[]", [1.0])
        )
        assert code == 0, "llama_set_adapters_lora"

    @property
    def n_vocab(self) -> int:
        return int(self._lib.llama_vocab_n_tokens(self.vocab))

    @property
    def bos(self) -> int:
        return int(self._lib.llama_vocab_bos(self.vocab))

    @property
    def eos(self) -> int:
        return int(self._lib.llama_vocab_eos(self.vocab))

    @property
    def adds_bos(self) -> bool:
        return bool(self._lib.llama_vocab_get_add_bos(self.vocab))

    def is_end(self, token: int) -> bool:
        return bool(self._lib.llama_vocab_is_eog(self.vocab, token))

    def value(self, key: str) -> str | None:
        """Return the value of a key of the file as text."""
        buffer = _ffi.new("char[]", 1024)
        n = self._lib.llama_model_meta_val_str(self._model, key.encode(), buffer, 1024)
        return None if n < 0 else bytes(_ffi.buffer(buffer, n)).decode()

    def feed(self, ids: list[int]) -> npt.NDArray[np.float32]:
        """Feed more tokens, and return their logits, float32 (n, vocab)."""
        lib, n = self._lib, len(ids)
        batch = lib.llama_batch_init(n, 0, 1)
        try:
            batch.n_tokens = n
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i] = token, self._n_past + i
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
            if (code := lib.llama_decode(self._context, batch)) != 0:
                raise AssertionError(f"llama_decode: {code}\n{''.join(_log)[-2000:]}")
            rows = [
                np.frombuffer(bytes(_ffi.buffer(lib.llama_get_logits_ith(self._context, i), 4 * self.n_vocab)), "<f4")
                for i in range(n)
            ]
            result = np.stack(rows)
        finally:
            lib.llama_batch_free(batch)
        self._n_past += n
        return result

    def read(self, ids: list[int]) -> None:
        """Feed more tokens, and compute the logits of the last one."""
        lib, n = self._lib, len(ids)
        batch = lib.llama_batch_init(n, 0, 1)
        try:
            batch.n_tokens = n
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i] = token, self._n_past + i
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, int(i == n - 1)
            if (code := lib.llama_decode(self._context, batch)) != 0:
                raise AssertionError(f"llama_decode: {code}\n{''.join(_log)[-2000:]}")
            if lib.llama_get_logits_ith(self._context, n - 1) == _ffi.NULL:
                raise AssertionError("llama.cpp has no logits of the last token")
        finally:
            lib.llama_batch_free(batch)
        self._n_past += n

    def greedy(self, prompt: list[int], n: int) -> list[int]:
        """Return the next n tokens, each of them the most likely token."""
        made = [int(self.feed(prompt)[-1].argmax())]
        while len(made) < n:
            made.append(int(self.feed([made[-1]])[-1].argmax()))
        return made

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text. The text of a special token becomes the id of this token."""
        content = text.encode("utf-8")
        room = len(content) + 8
        tokens = _ffi.new("llama_token[]", room)
        n = self._lib.llama_tokenize(self.vocab, content, len(content), tokens, room, True, True)
        if n < 0:
            raise AssertionError(f"llama_tokenize: {n}")
        return [int(tokens[i]) for i in range(n)]

    def text_of(self, ids: list[int]) -> bytes:
        pieces = []
        buffer = _ffi.new("char[]", 4096)
        for token in ids:
            n = self._lib.llama_token_to_piece(self.vocab, token, buffer, 4096, 0, True)
            if n < 0:
                raise AssertionError(f"llama_token_to_piece: {n}")
            pieces.append(bytes(_ffi.buffer(buffer, n)))
        return b"".join(pieces)

    def close(self) -> None:
        if self._context != _ffi.NULL:
            self._lib.llama_free(self._context)
            self._lib.llama_model_free(self._model)
            self._context = _ffi.NULL

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
