"""Export and import models: GGUF files for llama.cpp, and Hugging Face folders. Needs the extra toynn[interop]."""

from toynn.extras import naming_the_extra

with naming_the_extra("interop"):
    from toynn.interop.gguf_base import GgufBase
    from toynn.interop.gguf_export import GgufExport, export_gguf
    from toynn.interop.gguf_import import import_gguf
    from toynn.interop.gguf_types import GGUF_DTYPES
    from toynn.interop.hf_export import export_hf
    from toynn.interop.hf_import import import_hf
    from toynn.interop.toy_export import export_toy

__all__ = [
    "GGUF_DTYPES",
    "GgufBase",
    "GgufExport",
    "export_gguf",
    "export_hf",
    "export_toy",
    "import_gguf",
    "import_hf",
]
