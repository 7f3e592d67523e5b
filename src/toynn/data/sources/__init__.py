"""The sources of training data: files of texts or of samples in several formats, read one sample at a time.

A module here reads one container: `json_lines`, `json_array`, `parquet`. `compressed` unpacks a file while it is read.
`records` turns the content of a line, an element or a row into a sample. `source` combines these modules.
"""

from toynn.data.sources.records import FORMATS, Chat, Completion, Pair, Sample, Text
from toynn.data.sources.source import DataSource, Skipped, open_source

__all__ = ["FORMATS", "Chat", "Completion", "DataSource", "Pair", "Sample", "Skipped", "Text", "open_source"]
