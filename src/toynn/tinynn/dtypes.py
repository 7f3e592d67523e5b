"""ggml's ids of the dtypes that tensors can have."""

from __future__ import annotations

from toynn.tinynn.native import lib

__all__ = ["TNN_BF16", "TNN_F16", "TNN_F32", "TNN_I32"]

TNN_F32 = lib.TNN_F32
TNN_F16 = lib.TNN_F16
TNN_I32 = lib.TNN_I32
TNN_BF16 = lib.TNN_BF16
