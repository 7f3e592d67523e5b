"""Checkpoints. A checkpoint is a folder with a model, its tokenizer and the state of its training.

After any failure, a checkpoint is either complete or missing. This package needs the library safetensors (extra
toynn[cli] or toynn[interop]).
"""

from toynn.extras import naming_the_extra

with naming_the_extra():
    from toynn.storage.checkpoint.folder import Checkpoint, TrainingState
    from toynn.storage.checkpoint.reading import load_checkpoint
    from toynn.storage.checkpoint.run_folder import RunFolder, RunReader, write_checkpoint

__all__ = ["Checkpoint", "RunFolder", "RunReader", "TrainingState", "load_checkpoint", "write_checkpoint"]
