"""Training data: text packed into token files, which are read as windows in a seeded order.

`toynn.data.prepare` needs the extra toynn[cli]; reading needs only numpy.
"""

from toynn.data.folder import DataFolder
from toynn.data.meta import DataMeta, Source, Split, TokenizerFile, load_meta
from toynn.data.packed import PackedTokens
from toynn.data.windows import WindowBatcher

__all__ = ["DataFolder", "DataMeta", "PackedTokens", "Source", "Split", "TokenizerFile", "WindowBatcher", "load_meta"]
