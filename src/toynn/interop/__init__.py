"""Export and import models and adapters: GGUF files for llama.cpp, Hugging Face folders, and folders of PEFT.

Needs the extra toynn[interop]. Names are imported when they are first used, because some libraries take long to import.
"""

from typing import TYPE_CHECKING

from toynn.extras import naming_the_extra

_MODULES = {
    "GGUF_DTYPES": "toynn.interop.gguf_types",
    "GgufBase": "toynn.interop.gguf_base",
    "GgufExport": "toynn.interop.gguf_export",
    "export_gguf": "toynn.interop.gguf_export",
    "export_gguf_adapter": "toynn.interop.gguf_adapter",
    "export_hf": "toynn.interop.hf_export",
    "export_peft": "toynn.interop.peft_folder",
    "export_toy": "toynn.interop.toy_export",
    "import_adapter": "toynn.interop.adapter_import",
    "import_gguf": "toynn.interop.gguf_import",
    "import_gguf_adapter": "toynn.interop.gguf_adapter",
    "import_hf": "toynn.interop.hf_import",
    "import_peft": "toynn.interop.peft_folder",
    "is_adapter_file": "toynn.interop.adapter_import",
}

if TYPE_CHECKING:
    from toynn.interop.adapter_import import import_adapter as import_adapter
    from toynn.interop.adapter_import import is_adapter_file as is_adapter_file
    from toynn.interop.gguf_adapter import export_gguf_adapter as export_gguf_adapter
    from toynn.interop.gguf_adapter import import_gguf_adapter as import_gguf_adapter
    from toynn.interop.gguf_base import GgufBase as GgufBase
    from toynn.interop.gguf_export import GgufExport as GgufExport
    from toynn.interop.gguf_export import export_gguf as export_gguf
    from toynn.interop.gguf_import import import_gguf as import_gguf
    from toynn.interop.gguf_types import GGUF_DTYPES as GGUF_DTYPES
    from toynn.interop.hf_export import export_hf as export_hf
    from toynn.interop.hf_import import import_hf as import_hf
    from toynn.interop.peft_folder import export_peft as export_peft
    from toynn.interop.peft_folder import import_peft as import_peft
    from toynn.interop.toy_export import export_toy as export_toy
else:

    def __getattr__(name: str) -> object:
        """Import a public name, and keep it as an attribute."""
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module 'toynn.interop' has no attribute {name!r}")
        with naming_the_extra("interop"):
            value: object = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = list(_MODULES)
