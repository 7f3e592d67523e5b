"""Export and import models and adapters: GGUF files for llama.cpp, Hugging Face folders, and folders of PEFT.

Needs the extra toynn[interop].
"""

from toynn.extras import naming_the_extra

with naming_the_extra("interop"):
    from toynn.interop.adapter_import import import_adapter, is_adapter_file
    from toynn.interop.gguf_adapter import export_gguf_adapter, import_gguf_adapter
    from toynn.interop.gguf_base import GgufBase
    from toynn.interop.gguf_export import GgufExport, export_gguf
    from toynn.interop.gguf_import import import_gguf
    from toynn.interop.gguf_types import GGUF_DTYPES
    from toynn.interop.hf_export import export_hf
    from toynn.interop.hf_import import import_hf
    from toynn.interop.peft_folder import export_peft, import_peft
    from toynn.interop.toy_export import export_toy

__all__ = [
    "GGUF_DTYPES",
    "GgufBase",
    "GgufExport",
    "export_gguf",
    "export_gguf_adapter",
    "export_hf",
    "export_peft",
    "export_toy",
    "import_adapter",
    "import_gguf",
    "import_gguf_adapter",
    "import_hf",
    "import_peft",
    "is_adapter_file",
]
