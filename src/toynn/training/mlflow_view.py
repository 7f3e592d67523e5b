"""Send the metrics of a run to MLflow. Needs mlflow or mlflow-skinny (extra toynn[mlflow])."""

from __future__ import annotations

import math
import os
import time
from types import TracebackType
from typing import Any

from toynn.extras import naming_the_extra
from toynn.training.events import Ended, Evaluated, Event, Started, Stepped
from toynn.training.logged_figures import figures_of, not_started, texts_of
from toynn.training.toml_config import flat, from_toml, to_plain

with naming_the_extra():
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

EXPERIMENT = "toynn"  # the default; the variable MLFLOW_EXPERIMENT_NAME can name another experiment
_MOST_METRICS = 500  # number of metrics that are sent together; a request for each step would slow down the training
_SECONDS = 5.0  # collected metrics are sent after this number of seconds
_LONGEST_PARAM = 500  # largest number of characters that MLflow's servers accept in a parameter


class MlflowView:
    """A callback that logs losses, other figures, evaluations and generated texts with MLflow.

    The event Started begins a new run of MLflow, which has the name of the run folder. The
    environment variables of MLflow apply, for example MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME. Figures are sent
    every few seconds. The texts of an evaluation are an artifact, samples/step-00000100.txt.
    """

    def __init__(self) -> None:
        self._client: Any = None
        self._run_id = ""
        self._metrics: list[Any] = []
        self._sent = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started):
            self.close()
            self._start(event)
        elif isinstance(event, Stepped | Evaluated):
            if self._client is None:
                raise not_started(self)
            self._log(event)
        elif isinstance(event, Ended):
            self.close("KILLED" if event.reason == "interrupted" else "FINISHED")

    def _start(self, event: Started) -> None:
        client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = client.get_experiment_by_name(name)
        experiment_id = client.create_experiment(name) if experiment is None else experiment.experiment_id
        self._client, self._sent = client, time.monotonic()
        self._run_id = client.create_run(experiment_id, run_name=event.run.resolve().name).info.run_id
        settings = {**flat(to_plain(from_toml(event.config))), "parameters": event.parameters}
        params = [Param(key, str(value)[:_LONGEST_PARAM]) for key, value in settings.items()]
        client.log_batch(self._run_id, params=params)

    def _log(self, event: Stepped | Evaluated) -> None:
        now = int(time.time() * 1000)
        self._metrics += [
            Metric(name, value, now, event.step) for name, value in figures_of(event).items() if math.isfinite(value)
        ]
        if texts := texts_of(event):
            self._client.log_text(self._run_id, "\n\n".join(texts) + "\n", f"samples/step-{event.step:08}.txt")
        if len(self._metrics) >= _MOST_METRICS or time.monotonic() - self._sent > _SECONDS:
            self._send()

    def _send(self) -> None:
        metrics, self._metrics = self._metrics, []
        self._sent = time.monotonic()
        self._client.log_batch(self._run_id, metrics=metrics)

    def close(self, status: str = "FINISHED") -> None:
        """Send the remaining data and end the run of MLflow. A second call does nothing.

        status: "FINISHED", "KILLED" or "FAILED".
        """
        if self._client is not None:
            try:
                self._send()
                self._client.set_terminated(self._run_id, status)
            finally:
                self._client = None

    def __enter__(self) -> MlflowView:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close("FINISHED" if exc_type is None else "FAILED")
