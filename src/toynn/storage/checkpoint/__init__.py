"""Checkpoints: a model, its tokenizer and the state of its training in one folder, which is complete or absent.

Needs the library safetensors (extra toynn[cli] or toynn[interop]).
"""

from toynn.extras import naming_the_extra

with naming_the_extra():
    from toynn.storage.checkpoint.folder import Checkpoint, TrainingState
    from toynn.storage.checkpoint.run_folder import RunFolder, load_checkpoint, write_checkpoint

__all__ = ["Checkpoint", "RunFolder", "TrainingState", "load_checkpoint", "write_checkpoint"]
