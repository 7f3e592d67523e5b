"""Choose the steps and the evaluation of a run: on windows or on preference pairs, in one process or in several."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from toynn.data import DataFolder
from toynn.data.pairs import PairBatcher
from toynn.data.windows import Windows
from toynn.llm.engine import LlamaSeqEngine
from toynn.parallel.processes import Processes
from toynn.training.evaluation import Validation
from toynn.training.packed_validation import validation_of
from toynn.training.parallel_step import ParallelSteps
from toynn.training.preference import PairValidation, ParallelPreferenceSteps, PreferenceSteps
from toynn.training.shares import WindowShare
from toynn.training.start import Start
from toynn.training.step import TrainingSteps

Steps: TypeAlias = TrainingSteps | ParallelSteps


def steps_and_validation(
    start: Start,
    data: DataFolder,
    engine: LlamaSeqEngine,
    windows: Windows,
    share: WindowShare,
    interrupted: Callable[[], bool],
    processes: Processes | None,
) -> tuple[Steps, Validation | PairValidation]:
    """Return the steps and the evaluation of a run whose model is realized.

    share: the windows or pairs of a step that this process computes. interrupted: as for `TrainingSteps`.
    """
    config, n = start.config, start.config.evaluation.windows
    moments = {} if start.state is None else start.state.moments
    steps: Steps
    if isinstance(windows, PairBatcher):
        if processes is None:
            steps = PreferenceSteps(engine, windows, config, interrupted)
        else:
            steps = ParallelPreferenceSteps(engine, windows, config, processes, share, moments)
        return steps, PairValidation(data.validation, start.t_seq, config.dpo.preference(), n)
    if processes is None:
        steps = TrainingSteps(engine, windows, config, interrupted)
    else:
        steps = ParallelSteps(engine, windows, config, processes, share, moments)
    return steps, validation_of(data.validation, start.t_seq, share.batch, n, config.data)
