"""The compiled extension (csrc + ggml), seen through cffi: untyped by nature, wrapped by toynn.tinynn."""

from typing import Any

ffi: Any
lib: Any
