"""A program: its commands, one a file, and how it starts and ends."""

from __future__ import annotations

import atexit
import errno
import functools
import importlib
import io
import os
import pkgutil
import platform
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from larq_rep_cli.errors import InputError, Terminated
from larq_rep_cli.light import did_you_mean
from larq_rep_cli.terminal import note

# An exception that no command expects. 1 and 2 say something about the input.
_FAULT = 3


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def _end(code: int | str | None) -> NoReturn:
    """Ends the process at once. Python would first destroy TensorFlow's objects, for up to half a minute."""
    if isinstance(code, str):  # Like sys.exit.
        note(code)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


class Group(click.Group):
    """A group of commands that suggests corrections of mistyped commands and defines how a program ends.

    Each module of `package` is a command and has a function of its name; `import_` is `import`, and modules that begin
    with `_` are not commands. A module is imported when its command is needed.

    Exit codes: the commands' own; 3 after an exception that no command expects, 130 after Ctrl-C, 143 after SIGTERM
    and 141 when nobody reads the output any more, as for programs that these signals end. A program that no other one
    called exits as soon as its output is written, and SIGTERM ends it even as process 1.
    """

    def __init__(self, *args: Any, package: str = "", **attributes: Any):
        super().__init__(*args, **attributes)
        self.package = package

    def _modules(self) -> dict[str, str]:
        """The modules of the package by the names of their commands."""
        if not self.package:
            return {}
        path = importlib.import_module(self.package).__path__
        names = [module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")]
        return {name.rstrip("_"): name for name in names}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._modules()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = self._modules().get(cmd_name)
        if module is None:
            return super().get_command(ctx, cmd_name)
        return getattr(importlib.import_module(f"{self.package}.{module}"), module)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        run = functools.partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if args is not None:  # Called by another program, which goes on.
            _prepare_process()
            sys.exit(_exit_code(run, args))
        _restart_with_docstrings()
        signal.signal(signal.SIGTERM, _terminate)
        try:
            _prepare_process()
            code = _exit_code(run, args)
        except Terminated:
            if os.getpid() != 1:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGTERM)
            code = 128 + signal.SIGTERM
        _end(code)

    def resolve_command(self, ctx: click.Context, args: list[str]):
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            hint = did_you_mean(args[0], self.list_commands(ctx))
            ctx.fail(f"There is no command {args[0]!r}. {hint or f'{ctx.command_path} --help names all.'}")
        return super().resolve_command(ctx, args)


def _restart_with_docstrings() -> None:
    """Restarts Python if it was told to leave out docstrings: tf_keras edits its own, and `--help` shows ours."""
    if sys.flags.optimize > 1 and os.environ.get("PYTHONOPTIMIZE", "1") != "1":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONOPTIMIZE": "1"})


def _prepare_process() -> None:
    """Makes the commands independent of settings that shells, services and notebooks make for other programs."""
    # larq_rep sets it as well, but a command may import TensorFlow first.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    # Pictures are only written to files. A notebook's backend cannot be imported elsewhere.
    os.environ["MPLBACKEND"] = "agg"
    # The next file to be opened would get the number of a closed descriptor, and with it the output.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115  (as long as the process)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115
    # File names may contain characters that the terminal's encoding lacks.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _exit_code(run: Callable[[], Any], args: Sequence[str] | None) -> int | str | None:
    """Runs a command, prints what went wrong and returns the exit code."""
    stdout = sys.stdout
    try:
        result = run()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as error:
        # Exceptions that click takes for the user's wish to stop.
        if not isinstance(error.__cause__, EOFError):
            note("Interrupted.")
            return 130
        return _fault(error.__cause__, args)
    except SystemExit as error:
        # If nobody reads the output any more, click replaces the stream and exits; rich exits in its error handler.
        unread = sys.stdout is not stdout or isinstance(error.__context__, BrokenPipeError)
        return 141 if unread else error.code
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _fault(error, args)
        # Otherwise Python would try to write again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        note(f"Error: {error.strerror}.")
        return InputError.exit_code
    except Exception as error:
        return _fault(error, args)


def _fault(error: BaseException, args: Sequence[str] | None) -> int:
    """Prints an exception that no command expects, and asks the user to report it."""
    traceback.print_exception(error)
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    command = shlex.join([name, *(sys.argv[1:] if args is None else args)])
    versions = ", ".join(f"{package} {_version(package)}" for package in ("larq-rep", "tensorflow"))
    note(
        "This is a fault of larq-rep, not of its input. Please report it, with all lines above and these: "
        f"{versions}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, command: {command}"
    )
    return _FAULT


def _version(name: str) -> str:
    from importlib import metadata  # takes longer than all of click

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"
