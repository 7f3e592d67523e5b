"""`toynn bench-mpi`: measure the network between the processes, and predict the duration of training steps."""

from __future__ import annotations

import dataclasses
import json

import click

from toynn.cli.parallel_command import ParallelCommand
from toynn.errors import ProcessError
from toynn.parallel.benchmark import measured_network
from toynn.parallel.cost_model import step_cost
from toynn.parallel.processes import Processes

_NUMBERS = (2, 8, 64, 512, 4096)


@click.command(cls=ParallelCommand)
@click.option("--parameters", type=click.FloatRange(min=1), default=135e6, show_default=True,
              help="Number of trained parameters of the model.")  # fmt: skip
@click.option("--tokens", type=click.FloatRange(min=1), default=2097152, show_default=True,
              help="Tokens of a step: train.batch x train.accumulate x train.t_seq.")  # fmt: skip
@click.option("--flops", type=click.FloatRange(min=1), default=1e12, show_default=True,
              help="Operations per second of one process: 6 x parameters x tokens per second of a run.")  # fmt: skip
@click.option("--batches", type=click.FloatRange(min=1), default=1, show_default=True,
              help="Number of batches that a process computes in a step.")  # fmt: skip
@click.option("--embedding", type=click.FloatRange(min=0), default=0, show_default=True,
              help="Number of parameters of the embedding, if it is trained.")  # fmt: skip
@click.option("--megabytes", type=click.IntRange(1, 4096), default=64, show_default=True,
              help="Size of the exchanged vectors in megabytes.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(
    processes: Processes | None,
    parameters: float,
    tokens: float,
    flops: float,
    batches: float,
    embedding: float,
    megabytes: int,
    as_json: bool,
) -> None:
    """Measure the network between the processes of a job, and predict the duration
    of training steps.

    Start the command with mpiexec, as for training: mpiexec -n 8 toynn bench-mpi.
    See docs/scaling.md.
    """
    if processes is None:
        raise ProcessError("bench-mpi needs several processes; start the command with mpiexec -n N toynn bench-mpi")
    with processes.ending_together():
        network = measured_network(processes, megabytes)
    if not processes.writes:
        return
    costs = {
        n: step_cost(parameters, tokens, flops, n, network, batches=batches, embedding=embedding) for n in _NUMBERS
    }
    if as_json:
        found = {str(n): {"seconds": cost.seconds, "efficiency": cost.efficiency} for n, cost in costs.items()}
        constants = {"processes": processes.n, **dataclasses.asdict(network)}
        click.echo(json.dumps({**constants, "predicted": found}))
        return
    click.echo(
        f"{processes.n} processes: latency {network.latency * 1e6:.1f} us, {network.bandwidth / 1e9:.2f} GB/s sent, "
        f"{network.memory / 1e9:.2f} GB/s of memory"
    )
    for n, cost in costs.items():
        click.echo(
            f"{n:5} processes: {cost.seconds:.3g} s for a step, {cost.efficiency:.0%} of the step is computation"
        )
