"""Training data: text turned into packed token files, read back as windows in a seeded order.

`prepare` needs the extra toynn[cli]; reading needs numpy only.
"""

from toynn.data.meta import DataMeta, Source, Split, load_meta
from toynn.data.packed import PackedTokens
from toynn.data.windows import WindowBatcher

__all__ = ["DataMeta", "PackedTokens", "Source", "Split", "WindowBatcher", "load_meta"]
