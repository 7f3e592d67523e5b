"""Check at the start that all processes of a job have the same program, data, configuration and weights."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata

from toynn.data import DataFolder
from toynn.errors import ConfigurationError
from toynn.llm.engine import LlamaSeqEngine
from toynn.parallel.processes import Processes
from toynn.tinynn import build_info
from toynn.training.data_identity import data_identity
from toynn.training.shares import share_of
from toynn.training.start import Start
from toynn.training.toml_config import to_toml


def check_start(processes: Processes, start: Start, data: DataFolder, n_threads: int | None) -> int:
    """Check that the processes can train together, and return the number of threads of this process.

    n_threads: the number that the user asked for, or None.

    Raises ProcessError, naming the process and its host, if a process has another version, another instruction-set
    profile, other data or another configuration than process 0. Raises ConfigurationError for optimizer.ema and
    schedule.double_batch, or if the processes cannot divide the windows of a step.
    """
    build = build_info()
    processes.compare(
        {
            "version of toynn": importlib.metadata.version("toynn"),
            "version of ggml": f"{build['ggml_version']} {build['ggml_commit']}",
            "instruction-set profile": build["profile"],
            "configuration": to_toml(start.config),
            "number of steps taken": str(start.step),
            "base model": "none" if start.base is None else str(start.base.identity),
            **{f"data ({key})": str(value) for key, value in dataclasses.asdict(data_identity(data.meta)).items()},
        },
    )
    with processes.together():
        if start.config.optimizer.ema > 0:
            raise ConfigurationError(
                f"optimizer.ema = {start.config.optimizer.ema:g} cannot be used with several processes; leave out "
                "optimizer.ema, or start one process"
            )
        if start.config.schedule.double_batch:
            raise ConfigurationError(
                f"schedule.double_batch = {list(start.config.schedule.double_batch)} cannot be used with several "
                "processes; leave out schedule.double_batch, or start one process"
            )
        share_of(start.config.train, processes.rank, processes.n)
    with processes.together():
        return processes.threads(n_threads)


def check_weights(processes: Processes, engine: LlamaSeqEngine) -> None:
    """Raise ProcessError if the initial weights of a process differ from those of process 0."""
    digest = hashlib.sha256()
    for name in engine.param_names():
        digest.update(engine.download_weight(name).data)
    processes.compare({"sha256 of the initial weights": digest.hexdigest()})
