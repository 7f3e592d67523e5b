"""Turn samples into packed tokens: render and encode samples, mark the tokens that count, and write the files."""

from toynn.data.samples.prepare import prepare_samples
from toynn.data.samples.settings import LOSSES, TRUNCATIONS, SampleSettings

__all__ = ["LOSSES", "TRUNCATIONS", "SampleSettings", "prepare_samples"]
