"""Training data. Texts are encoded once into token files, and training reads these as windows in a random order.

`toynn.data.prepare` needs the extra toynn[cli]. The other modules need only numpy.
"""

from toynn.data.folder import DataFolder
from toynn.data.meta import DataMeta, Source, Split, TokenizerFile, load_meta
from toynn.data.packed import PackedTokens
from toynn.data.windows import WindowBatcher

__all__ = ["DataFolder", "DataMeta", "PackedTokens", "Source", "Split", "TokenizerFile", "WindowBatcher", "load_meta"]
