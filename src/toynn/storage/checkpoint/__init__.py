"""Checkpoints: a model, the state of its training and its tokenizer, on disk in one folder that is whole or not there.

Needs safetensors, of the extra toynn[cli] (or [interop]).
"""

from toynn.extras import naming_the_extra

with naming_the_extra():
    from toynn.storage.checkpoint.folder import Checkpoint, TrainingState
    from toynn.storage.checkpoint.run_folder import RunFolder, load_checkpoint, write_checkpoint

__all__ = ["Checkpoint", "RunFolder", "TrainingState", "load_checkpoint", "write_checkpoint"]
