"""Send the metrics of a run to Weights & Biases. Needs wandb (extra toynn[wandb])."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from toynn.extras import naming_the_extra
from toynn.training.events import Ended, Evaluated, Event, Started, Stepped
from toynn.training.logged_figures import figures_of, not_started, texts_of
from toynn.training.toml_config import from_toml, to_plain

with naming_the_extra():
    import wandb

PROJECT = "toynn"  # the default; the variable WANDB_PROJECT can name another project


class WandbView:
    """A callback that logs losses, other figures, evaluations and generated texts with Weights & Biases.

    The event Started begins a new run of Weights & Biases, which has the name of the run folder. The runs of one folder
    are a group. wandb keeps its files in the run folder. The environment variables of wandb apply, for example
    WANDB_MODE=offline and WANDB_PROJECT.
    """

    def __init__(self) -> None:
        self._run: Any = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.close()
            name = event.run.resolve().name
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=name,
                group=name,
                dir=str(event.run),
                config={**to_plain(from_toml(event.config)), "parameters": event.parameters},
                settings=wandb.Settings(console="off", silent=True),  # toynn shows the progress itself
            )
        elif isinstance(event, Stepped | Evaluated):
            if self._run is None:
                raise not_started(self)
            values: dict[str, Any] = dict(figures_of(event))
            if texts := texts_of(event):
                values["samples"] = wandb.Table(columns=["text"], data=[[text] for text in texts])
            self._run.log(values, step=event.step)
        elif isinstance(event, Ended):
            self.close()

    def close(self, exit_code: int = 0) -> None:
        """Write the remaining data.

        A second call does nothing. exit_code: a number other than 0 marks the run as failed.
        """
        run, self._run = self._run, None
        if run is not None:
            run.finish(exit_code=exit_code)

    def __enter__(self) -> WandbView:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(0 if exc_type is None else 1)
