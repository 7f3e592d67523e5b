"""The click group of all commands. It imports the module of a command and turns exceptions into exit codes.

Exit codes: 0 success, 1 failure, 2 wrong input, 130 interrupted by Ctrl-C. Every error is one line on stderr that says
what to do. This also holds for an unknown command or option. The option -v adds the traceback.
"""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from toynn.cli.interrupts import INTERRUPTED, loading_modules
from toynn.errors import ProcessError
from toynn.extras import naming_the_extra
from toynn.parallel.launch import launched_processes, launched_rank
from toynn.text.panic_text import hide_panics
from toynn.wording import on_the_command_line, one_line

if TYPE_CHECKING:
    from toynn.parallel.processes import Processes

COMMANDS = {
    "prepare": "Turn texts or samples into packed tokens and a tokenizer.",
    "plan": "Choose a model and its training for a time.",
    "train": "Train a model on packed tokens.",
    "data": "Show samples of prepared data.",
    "lr-find": "Suggest a learning rate for a run.",
    "watch": "Serve a web page that follows a run.",
    "report": "Plot the losses of a run and write an HTML page.",
    "generate": "Continue a text.",
    "chat": "Talk with a model.",
    "serve": "Serve a model with the API of OpenAI.",
    "eval": "Measure loss, perplexity and bits per byte on a text.",
    "lmc": "Show the loss along the line between two models.",
    "export": "Write a model as GGUF or as a Hugging Face folder.",
    "import": "Make a run from a GGUF file or a Hugging Face folder.",
    "bench-mpi": "Measure the network between processes that mpiexec started.",
    "info": "Describe this build, a data folder, a run or a model.",
}
FOR_SEVERAL_PROCESSES = ("train", "eval", "prepare", "generate", "bench-mpi")  # the commands that mpiexec can start


class _Misuse(click.ClickException):
    """The error for a wrong command line. Its message has one line; click's own message would have four."""

    exit_code = 2

    def __init__(self, error: click.UsageError) -> None:
        message = " ".join(error.format_message().split()).rstrip(".")
        where = "" if error.ctx is None else f"; see {error.ctx.command_path} --help"
        super().__init__(f"{message}{where}")

    def show(self, file: IO[Any] | None = None) -> None:
        error, quiet = _of_all_processes(self)
        if not quiet:
            click.echo(f"toynn: {one_line(error)}", file=file, err=True)


def _module_of(command: str) -> str:
    """Return the module of a command."""
    return f"toynn.cli.{command.replace('-', '_')}_command"


class _Commands(click.Group):
    """The group of commands. It imports the module toynn.cli.NAME_command when the command NAME is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return [name for name in COMMANDS if find_spec(_module_of(name)) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        with loading_modules(), naming_the_extra():
            module = importlib.import_module(_module_of(cmd_name))
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands as click does, but take the help texts from COMMANDS and import no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, known = args[0], self.list_commands(ctx)
        if not ctx.resilient_parsing and not name.startswith("-") and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(known)}"
            raise _Misuse(click.UsageError(f"there is no command {name!r}; {hint}"))
        if name in known and name not in FOR_SEVERAL_PROCESSES and launched_processes() > 1:
            raise _Misuse(
                click.UsageError(
                    f"mpiexec started {launched_processes()} processes, but toynn {name} runs in one process; "
                    "start the command without mpiexec"
                )
            )
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **options: Any) -> Any:
        if launched_processes() == 1:
            return super().main(*args, **options)
        with _only_process_0_prints(), _meeting_at_the_end():
            return super().main(*args, **options)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise _in_one_line(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with on_the_command_line():
                return super().invoke(ctx)
        except click.UsageError as error:
            raise _in_one_line(error) from None
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except KeyboardInterrupt:
            click.echo("toynn: interrupted", err=True)
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            raise
        except Exception as error:
            error, quiet = _of_all_processes(error)
            if quiet:
                sys.exit(_exit_code(error))
            if ctx.params.get("verbose"):
                traceback.print_exc()
            click.echo(f"toynn: {_one_line(error)}", err=True)
            sys.exit(_exit_code(error))


def _of_all_processes(error: Exception) -> tuple[Exception, bool]:
    """Return the error with which all processes of a job end, and whether another process prints it.

    Without this call, the other processes would wait for this one.
    """
    if launched_processes() == 1:
        return error, False
    processes = _processes()
    if processes is None:  # MPI cannot be used, so the processes cannot exchange messages
        return error, launched_rank() > 0
    try:
        processes.fail(error)
    except ProcessError as other:
        return other, processes.quiet
    return error, processes.quiet


def _processes() -> Processes | None:
    """Return the processes of the job, or None if this process cannot exchange anything with them."""
    from toynn.parallel.processes import processes_of_job

    try:
        return processes_of_job()
    except (ProcessError, ModuleNotFoundError):
        return None


@contextmanager
def _only_process_0_prints() -> Iterator[None]:
    """Discard what the other processes of a job write to stdout."""
    if launched_rank() == 0:
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nothing, redirect_stdout(nothing):
        yield


@contextmanager
def _meeting_at_the_end() -> Iterator[None]:
    """If the block ends the process early, as --help does, tell the other processes of the job.

    Otherwise the other processes would wait for this process.
    """
    try:
        yield
    except SystemExit:
        try:
            if (processes := _processes()) is not None:
                processes.meet(shlex.join(["toynn", *sys.argv[1:]]))
        except ProcessError as error:
            if launched_rank() == 0:
                click.echo(f"toynn: {one_line(error)}", err=True)
            sys.exit(_exit_code(error))
        raise


def _in_one_line(error: click.UsageError) -> click.ClickException:
    asks_for_help = isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ()))  # click 8.2 added this class
    return error if asks_for_help else _Misuse(error)


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename is None and _comes_from_printing(error):
        return f"cannot write to stdout: {error.strerror}"
    return one_line(error)


def _comes_from_printing(error: BaseException) -> bool:
    """Return whether click.echo raised the error. On a full disk, click.echo raises an OSError that does not name a
    file.
    """
    return any(frame.f_code is click.echo.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def _exit_code(error: BaseException) -> int:
    """Return the exit code for an error: 2 if the input was wrong, otherwise 1."""
    # the variable TOYNN_GEMM_KERNEL has a wrong value
    if isinstance(error, ImportError) and isinstance(error.__cause__, ValueError):
        return 2
    bad_input = (ValueError, TypeError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
    return 2 if isinstance(error, bad_input) else 1


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(package_name="toynn", message="%(prog)s %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Show the Python traceback of an error.")
@click.pass_context
def app(ctx: click.Context, verbose: bool) -> None:
    """Train small models of the llama family on an ordinary CPU, and use them."""
    ctx.obj = verbose
    hide_panics()
