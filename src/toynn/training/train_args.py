"""TrainArgs: what `toynn.train` trains, on which data, and into which folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toynn.arguments import boolean, integer, not_negative, one_of
from toynn.errors import TinyNNTypeError, TinyNNValueError
from toynn.initialised import Initialised
from toynn.llm.adapters.open_base import OpenBase
from toynn.storage.checkpoint import Checkpoint
from toynn.storage.regular_files import path_of
from toynn.training.adapter_config import checked_base
from toynn.training.config import TrainConfig
from toynn.training.optimizer_config import CHANGEABLE
from toynn.wording import spelled


@dataclass(frozen=True)
class TrainArgs(Initialised):
    """The arguments of `toynn.train`.

    data: a data folder made by `toynn prepare`.
    out: the folder of the run. It is created if it does not exist.
    config: the configuration. None: the defaults, or the configuration of the run that is resumed.
    init: the model to start from, as a `Checkpoint` or the path of a run or checkpoint. None: random weights.
    resume: continue the run in `out` from its latest checkpoint. config may differ from the configuration of the run
        only in train.steps, train.epochs, evaluation and checkpoint, and in the keys in `changes`.
    changes: keys of optimizer and schedule, like "optimizer.lr", whose values a resumed run takes from config. The
        result then differs from the result of a run without interruption.
    resume_from: the name of the checkpoint to resume from, like "step-00000070", instead of the latest one. This
        checkpoint becomes the latest one. Newer checkpoints are kept until training reaches their step again.
    n_threads: number of threads. Default: the number of cores that this process may use. The result does not depend on
        this number.
    base: the frozen model on which an adapter is trained (adapter.rank), as an `OpenBase` or the path of a GGUF file,
        Hugging Face folder or run. With `resume`: the place of the base, if it was moved.
    seconds_used: the seconds of train.seconds that were used before this call, for example by planning.
    """

    data: Path
    out: Path
    config: TrainConfig | None = None
    init: Path | Checkpoint | None = None
    resume: bool = False
    n_threads: int | None = None
    resume_from: str | None = None
    changes: tuple[str, ...] = ()
    base: Path | OpenBase | None = None
    seconds_used: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", checked_base(self.base, self.init))
        for name in ("data", "out", "init"):
            value = getattr(self, name)
            if name == "init" and isinstance(value, Checkpoint | None):
                continue
            if not isinstance(value, str | Path):
                raise TinyNNTypeError(f"{name} must be a path, got {type(value).__name__}")
            object.__setattr__(self, name, path_of(name, value))
        if self.config is not None and not isinstance(self.config, TrainConfig):
            raise TinyNNTypeError(f"config must be a TrainConfig or None, got {type(self.config).__name__}")
        object.__setattr__(self, "resume", boolean("resume", self.resume))
        if self.resume and self.init is not None:
            raise TinyNNValueError(
                f"{spelled('init', '--init')} and {spelled('resume', '--resume')} cannot be combined: a resumed run "
                "starts from its own checkpoint"
            )
        if not isinstance(self.resume_from, str | None):
            raise TinyNNTypeError(f"resume_from must be a checkpoint name, got {type(self.resume_from).__name__}")
        if self.resume_from is not None and not self.resume:
            name, needed = spelled("resume_from=", "--from "), spelled("resume=True", "--resume")
            raise TinyNNValueError(f"{name}{self.resume_from!r:.60} needs {needed}")
        object.__setattr__(self, "changes", self._checked_changes())
        object.__setattr__(self, "seconds_used", not_negative("seconds_used", self.seconds_used))
        if self.n_threads is not None:
            object.__setattr__(self, "n_threads", integer("n_threads", self.n_threads, 1))

    def _checked_changes(self) -> tuple[str, ...]:
        changes: object = self.changes
        if not isinstance(changes, tuple | list):
            raise TinyNNTypeError(f"changes must be a tuple of keys, got {type(changes).__name__}")
        for i, key in enumerate(changes):
            one_of(f"changes[{i}]", key, CHANGEABLE)
        if changes and (self.config is None or not self.resume):
            raise TinyNNValueError(
                f"changes = {list(changes)!r:.80} needs resume=True and a config with the new values; give both"
            )
        return tuple(changes)
