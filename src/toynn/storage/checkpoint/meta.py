"""The meta.json of a checkpoint: the shape of the model, the progress of training, and the sha256 of each file."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from toynn.arguments import INT31_MAX, integer, sha256_digest
from toynn.errors import FileFormatError, TinyNNValueError
from toynn.llm.adapters.spec import AdapterSpec
from toynn.llm.adapters.trained_adapter import BaseModel, TrainedAdapter
from toynn.model.foreign_settings import NO_SETTINGS, ForeignSettings
from toynn.model.shape import ModelShape
from toynn.storage.checkpoint.migrations import CHECKPOINT
from toynn.tinynn import build_info, ggml_version

META = "meta.json"
WEIGHTS, MOMENTS, TOKENIZER = "weights.safetensors", "moments.safetensors", "tokenizer.json"
ADAPTER = "adapter.safetensors"
FILES = (WEIGHTS, ADAPTER, MOMENTS, TOKENIZER)
_LARGEST = 2**63 - 1
OVER_BATCHES, OVER_WINDOWS = 1, 2  # values of order_of_sums


@dataclass(frozen=True)
class StoredFile:
    """The size in bytes and the sha256 of a file of the checkpoint."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        integer("bytes", self.bytes, 0, _LARGEST)
        sha256_digest("sha256", self.sha256)


@dataclass(frozen=True)
class DataIdentity:
    """The sha256 of the token files and the tokenizer of a run. A resumed run must use the same files."""

    train: str
    validation: str
    tokenizer: str | None  # None: the data has no tokenizer

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if (digest := getattr(self, field.name)) is not None or field.name != "tokenizer":
                sha256_digest(field.name, digest)


@dataclass(frozen=True)
class StoredAdapter:
    """The adapter of a checkpoint, whose matrices are in the file adapter.safetensors.

    rank, alpha, use_rslora, targets: see `AdapterSpec`.
    base_path, base_sha256: see `BaseModel`.
    """

    rank: int
    alpha: float
    use_rslora: bool
    targets: list[str]
    base_path: str
    base_sha256: str

    def __post_init__(self) -> None:
        self.spec()
        self.base()

    def spec(self) -> AdapterSpec:
        """Return the rank, scale and targets of the adapter."""
        return AdapterSpec(self.rank, self.alpha, self.use_rslora, tuple(self.targets))

    def base(self) -> BaseModel:
        """Return the path and the sha256 of the base."""
        return BaseModel(Path(self.base_path), self.base_sha256)

    @classmethod
    def of(cls, adapter: TrainedAdapter) -> StoredAdapter:
        """Return the description of an adapter. Raises TinyNNValueError for an adapter without a base."""
        spec, base = adapter.spec, adapter.base
        if base is None:
            raise TinyNNValueError("adapter.base must be the base of the adapter, got None")
        return cls(spec.rank, spec.alpha, spec.use_rslora, list(spec.targets), str(base.path), base.sha256)


@dataclass(frozen=True)
class TrainingProgress:
    """The state of a training run after a step, without weights and moments.

    windows: number of windows read so far.
    best_loss, best_step: loss and step of the best evaluation, None before the first evaluation.
    bad_evaluations: number of evaluations after the best one.
    config: the configuration as TOML.
    data: the files that the run is trained on.
    separator: the line that separates the documents of the data, if the user chose one; None: the default.
    order_of_sums: how the windows of a step were added up. OVER_WINDOWS: as a binary tree. OVER_BATCHES: the rows of a
        batch one after the other, as older versions did. A step with one window has the same bits in both orders.
    """

    windows: int
    best_loss: float | None
    best_step: int | None
    bad_evaluations: int
    config: str
    data: DataIdentity
    separator: str | None = None
    order_of_sums: int = OVER_BATCHES
    reference: str | None = None

    def __post_init__(self) -> None:
        integer("order_of_sums", self.order_of_sums, OVER_BATCHES, OVER_WINDOWS)
        integer("windows", self.windows, 0, _LARGEST)
        if self.reference is not None:
            sha256_digest("reference", self.reference)
        integer("bad_evaluations", self.bad_evaluations, 0, _LARGEST)
        if self.best_loss is not None and not _finite(self.best_loss):
            raise TinyNNValueError(f"best_loss must be a finite number or null, got {self.best_loss!r:.60}")
        if (self.best_loss is None) != (self.best_step is None):
            raise TinyNNValueError(
                "best_loss and best_step must both be null or both be numbers, "
                f"got {self.best_loss!r:.60} and {self.best_step!r:.60}"
            )


@dataclass(frozen=True)
class CheckpointMeta:
    """The keys of meta.json.

    step: optimizer steps taken.
    training: None for a model that was not written by training.
    versions: the software that wrote the checkpoint, for information only.
    files: the other files of the checkpoint.
    other_eos_ids, foreign: see `TrainedModel`.
    adapter: None if the checkpoint contains all weights of the model; otherwise the checkpoint contains only an
        adapter.

    If the file lacks other_eos_ids, foreign or adapter, these keys have their defaults.
    """

    step: int
    model: ModelShape
    eos_id: int | None
    bos_id: int | None
    training: TrainingProgress | None
    versions: dict[str, str]
    files: dict[str, StoredFile]
    other_eos_ids: list[int] = dataclasses.field(default_factory=list)
    foreign: ForeignSettings = NO_SETTINGS
    adapter: StoredAdapter | None = None

    def __post_init__(self) -> None:
        for name in ("eos_id", "bos_id"):
            if (token := getattr(self, name)) is not None:
                integer(name, token, 0, self.model.vocab - 1)
        integer("step", self.step, 0, _LARGEST if self.training is None else INT31_MAX)
        if self.training is not None:
            integer("training.bad_evaluations", self.training.bad_evaluations, 0, self.step)
            if self.training.best_step is not None:
                integer("training.best_step", self.training.best_step, 0, self.step)
        if unknown := [name for name in self.files if name not in FILES]:
            raise TinyNNValueError(f"unknown key {'files.' + unknown[0]!r:.80}; known keys are {', '.join(FILES)}")
        weights, other = (WEIGHTS, ADAPTER) if self.adapter is None else (ADAPTER, WEIGHTS)
        if weights not in self.files:
            raise TinyNNValueError(f"files must contain {weights}, but it is missing")
        if other in self.files:
            raise TinyNNValueError(f"files must not contain {other} beside {weights}")
        if self.training is not None and self.step > 0 and MOMENTS not in self.files:
            raise TinyNNValueError(f"files must contain {MOMENTS} after {self.step} steps, but it is missing")

    def to_json(self) -> str:
        """Return the content of meta.json."""
        content = dataclasses.asdict(self)
        # older versions of toynn refuse these keys, so keys with their default value are left out
        if not self.other_eos_ids:
            del content["other_eos_ids"]
        if self.foreign == NO_SETTINGS:
            del content["foreign"]
        if self.adapter is None:
            del content["adapter"]
        if self.training is not None and self.training.separator is None:
            del content["training"]["separator"]
        if self.training is not None and self.training.reference is None:
            del content["training"]["reference"]
        if self.training is not None and self.training.order_of_sums == OVER_BATCHES:
            del content["training"]["order_of_sums"]
        return CHECKPOINT.text(content)


def versions_now() -> dict[str, str]:
    """Return the versions of the software of this process, which a checkpoint stores for information only."""
    from importlib.metadata import version  # a slow import, which reading a model does not need

    return {"toynn": version("toynn"), "ggml": ggml_version(), "profile": str(build_info()["profile"])}


def read_checkpoint_meta(folder: Path) -> CheckpointMeta:
    """Read the meta.json of a checkpoint, but not the files that it describes.

    Raises FileFormatError if the folder is not a checkpoint, or if meta.json is damaged or has a newer version.
    """
    try:
        return CHECKPOINT.load(folder / META, CheckpointMeta)
    except FileNotFoundError:
        raise FileFormatError(
            f"{folder} is not a checkpoint, because it has no {META}; give the folder of a run or of a checkpoint"
        ) from None


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # the value is an integer that is too large for a float
        return False
