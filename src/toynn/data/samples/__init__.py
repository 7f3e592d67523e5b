"""Samples to packed tokens: render them, encode them with the tokens that count for the loss, and write the files."""

from toynn.data.samples.prepare import prepare_samples
from toynn.data.samples.settings import LOSSES, TRUNCATIONS, SampleSettings

__all__ = ["LOSSES", "TRUNCATIONS", "SampleSettings", "prepare_samples"]
