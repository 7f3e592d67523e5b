"""Train a model on prepared data: configuration, schedule, training loop, log. Needs the extra toynn[cli]."""

from toynn.extras import naming_the_extra

with naming_the_extra():
    from toynn.training.adapter_config import AdapterArgs
    from toynn.training.config import (
        CheckpointArgs,
        EvaluationArgs,
        StepArgs,
        TrainConfig,
    )
    from toynn.training.data_config import DataArgs
    from toynn.training.divergence import DivergedError
    from toynn.training.events import (
        Ended,
        Evaluated,
        Event,
        ReferenceProgress,
        Rescheduled,
        Saved,
        Started,
        Stepped,
        StopTraining,
    )
    from toynn.training.model_config import ModelArgs
    from toynn.training.optimizer_config import OptimizerArgs, ScheduleArgs
    from toynn.training.preference_config import PreferenceArgs
    from toynn.training.train_args import TrainArgs
    from toynn.training.trainer import train

__all__ = [
    "AdapterArgs",
    "CheckpointArgs",
    "DataArgs",
    "DivergedError",
    "Ended",
    "Evaluated",
    "EvaluationArgs",
    "Event",
    "ModelArgs",
    "OptimizerArgs",
    "PreferenceArgs",
    "ReferenceProgress",
    "Rescheduled",
    "Saved",
    "ScheduleArgs",
    "Started",
    "StepArgs",
    "Stepped",
    "StopTraining",
    "TrainArgs",
    "TrainConfig",
    "train",
]
