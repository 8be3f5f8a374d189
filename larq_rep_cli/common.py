"""What the programs share: errors, terminal, progress, output files and models by file or name."""

from __future__ import annotations

import ast
import atexit
import difflib
import errno
import functools
import io
import json
import logging
import os
import platform
import re
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    import tensorflow as tf

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

# Wide enough for every table; rich would fold them at 80 columns when nobody looks.
_WIDTH_OF_FILES = 160


class InputError(click.ClickException):
    """What the user gave cannot be used. The message says what, where, what was expected, and what to do."""

    exit_code = 2


@contextmanager
def refusing(*errors: type[Exception], prefix: str = "") -> Iterator[None]:
    """Turns errors with which the library refuses its input into an `InputError`; all others pass."""
    try:
        yield
    except errors as error:
        raise InputError(f"{prefix}{error}") from error


class Terminated(BaseException):
    """SIGTERM, which Linux does not deliver to process 1 of a container that does not ask for it."""


def _terminate(number: int, frame: object) -> None:
    raise Terminated


def _end(code: int | str | None) -> NoReturn:
    """Ends the process at once. Python would first take apart what TensorFlow has built, for up to half a minute."""
    if isinstance(code, str):  # As sys.exit does.
        note(code)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code or 0)


class Group(click.Group):
    """A group of commands that knows what a mistyped command may have meant, and how a program ends.

    Exit codes: those of the commands; 3 after an exception that no command expects, 130 after Ctrl-C, 143 after SIGTERM
    and 141 when nobody reads the output any more, as of programs that these signals end. A program of its own ends as
    soon as it has said its last word, and by SIGTERM also as process 1.
    """

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


def examples(*lines: str) -> str:
    """An epilog that shows how a command is used, one example a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the names that come closest, whatever their case; empty if none does."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    return f"Did you mean {' or '.join(by_lower[c] for c in close)}?" if close else ""


# Processes

# An exception that no command expects. 1 and 2 say something about the input.
_FAULT = 3


def _restart_with_docstrings() -> None:
    """Replaces this process where Python was told to leave docstrings out: tf_keras edits its own, and `--help`."""
    if sys.flags.optimize > 1 and os.environ.get("PYTHONOPTIMIZE", "1") != "1":
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONOPTIMIZE": "1"})


def _prepare_process() -> None:
    """Makes the commands independent of what shells, services and notebooks set for other programs."""
    # larq_rep sets it as well, but a command may import TensorFlow first.
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    # Pictures are only written to files. That of a notebook cannot be imported elsewhere.
    os.environ["MPLBACKEND"] = "agg"
    # A closed descriptor would be that of the next file to be opened, and get what is printed.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115  (as long as the process)
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115
    # Names of files may hold what the encoding of the terminal lacks.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _exit_code(run: Callable[[], Any], args: Sequence[str] | None) -> int | str | None:
    """Runs a command and says how it ended; what went wrong is printed."""
    stdout = sys.stdout
    try:
        result = run()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as error:
        # What click takes for the user's wish to stop.
        if not isinstance(error.__cause__, EOFError):
            note("Interrupted.")
            return 130
        return _fault(error.__cause__, args)
    except SystemExit as error:
        # Where nobody reads on, click replaces the stream and ends, and rich ends while it handles the error.
        unread = sys.stdout is not stdout or isinstance(error.__context__, BrokenPipeError)
        return 141 if unread else error.code
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _fault(error, args)
        # Else Python would try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        note(f"Error: {error.strerror}.")
        return InputError.exit_code
    except Exception as error:
        return _fault(error, args)


def _fault(error: BaseException, args: Sequence[str] | None) -> int:
    """Prints an exception that no command expects, and what to do."""
    traceback.print_exception(error)
    command = shlex.join([Path(sys.argv[0]).name, *(sys.argv[1:] if args is None else args)])
    versions = ", ".join(f"{name} {_version(name)}" for name in ("larq-rep", "tensorflow"))
    note(
        "This is a fault of larq-rep and not of what it was given. Please report it, with all lines above and these: "
        f"{versions}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, command: {command}"
    )
    return _FAULT


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


# Terminal


def console() -> Console:
    """Standard output, for results. Text is printed as it is, and without colours if it goes to a file."""
    # Given the file, rich also looks at its encoding.
    result = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not sys.stdout.isatty():
        result.width = _WIDTH_OF_FILES
    return result


def note(message: str) -> None:
    """Prints a line that is not the result, on standard error."""
    click.echo(message, err=True)


def print_json(value: Any) -> None:
    """Prints a result for programs. JSON has no NaN and no infinity; they become null."""
    strict = json.loads(json.dumps(value), parse_constant=lambda _: None)
    click.echo(json.dumps(strict, indent=2))


@contextmanager
def progress() -> Iterator[Progress]:
    """A progress display on standard error, and nothing where that is no terminal."""
    if not sys.stderr.isatty():
        with Progress(disable=True) as silent:
            yield silent
        return
    # LCE's explanations are caught by redirecting the file descriptor of standard error: the display needs
    # another one, or its frames would be caught, too.
    with open(os.dup(2), "w", encoding="utf-8") as file:
        terminal = Console(file=file, force_terminal=True, highlight=False, markup=False, emoji=False)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=terminal, transient=True, redirect_stderr=False) as bars:
            yield bars


@contextmanager
def working(description: str) -> Iterator[None]:
    """Shows that something takes its time, where no steps can be counted."""
    with progress() as bars:
        bars.add_task(description, total=None)
        yield


def track(items: Iterable[_T], description: str, total: int) -> Iterator[_T]:
    """Shows a progress bar while the items are gone through."""
    with progress() as bars:
        yield from bars.track(items, total=total, description=description)


# TensorFlow


_is_quiet = False


def quiet_tensorflow(devices: bool = True) -> None:
    """Imports TensorFlow without its greetings, and silences what is noise in a command.

    Every command calls it before it imports anything of larq_rep. Set `TF_CPP_MIN_LOG_LEVEL` to 0 or 1 to see
    everything. Without `devices` TensorFlow is not started yet, for its workers must be connected first.
    """
    global _is_quiet
    if _is_quiet:
        return
    _is_quiet = True
    # Also where the user's filters make errors of them: TensorFlow could not be imported.
    warnings.simplefilter("ignore")
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "") in ("0", "1"):
        return
    # What goes wrong is told by exceptions.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # TensorFlow writes some lines before it looks at that variable.
    with _discarded_stderr():
        import larq_rep  # noqa: F401, I001  (first, so that TensorFlow takes Keras 2)
        import tensorflow as tf

        if devices:
            tf.config.list_logical_devices()  # the search for GPUs speaks, too
    # larq warns of binary kernels without a clip; networks of the literature have none on purpose. matplotlib says
    # where it keeps its cache if there is no home.
    for name in ("absl", "tensorflow", "larq", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _discarded_stderr() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere:
        saved = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


# Files


def force_option(function: _F) -> _F:
    return click.option("--force", is_flag=True, help="Overwrite files that exist.")(function)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


def check_output(path: Path, force: bool) -> None:
    """Refuses a file that could not be written, before the long work.

    # Raises
        InputError: If its folder does not exist or cannot be written to, if it is a folder itself, or if it
            exists and `force` is not set.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path} cannot be written: there is no folder {path.parent}. Create it first.")
    if path.is_dir():
        raise InputError(f"{path} cannot be written: it is a folder. Expected the name of a file.")
    if path.exists() and not force:
        raise InputError(f"{path} exists already. Give --force to overwrite it, or another name.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: no permission to write to the folder {path.parent}.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `larq_rep.files.replacing`, for a command.

    # Raises
        InputError: If the file cannot be written.
    """
    from larq_rep import files

    with refusing(OSError, prefix=f"{path} cannot be written: "), files.replacing(path) as unfinished:
        yield unfinished


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    # Raises
        InputError: If it cannot be read.
    """
    if not path.exists():
        raise InputError(f"There is no file {path}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder. Expected a file.")
    with refusing(OSError, prefix=f"{path} cannot be read: "):
        return path.read_bytes()


# Models


class InputSize(click.ParamType):
    name = "size"

    def convert(self, value, param, ctx) -> tuple[int, int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:x(\d+)(?:x(\d+))?)?", value.strip().lower())
        if match is None:
            self.fail(f"{value!r} is no size. Expected N, HxW or HxWxC: 224, 240x320 or 16x16x1.", param, ctx)
        height, width, channels = match.groups()
        return int(height), int(width or height), int(channels or 3)


class Keyword(click.ParamType):
    """KEY=VALUE, for an argument of a constructor that no option has."""

    name = "key=value"

    def convert(self, value, param, ctx) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        key, equals, text = value.partition("=")
        if not equals or not re.fullmatch(r"((\d+|network)\.)?[A-Za-z_]\w*", key):
            self.fail(f"{value!r} is no keyword argument. Expected KEY=VALUE, such as method=recu.", param, ctx)
        try:
            return key, ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return key, text


def set_option(function: _F) -> _F:
    """Arguments of the constructor of a network that are particular to it."""
    text = "Another argument of the network's constructor, such as method=recu; may be repeated."
    return click.option("--set", "keywords", type=Keyword(), multiple=True, metavar="KEY=VALUE", help=text)(function)


def size_options(function: _F) -> _F:
    """The options that the size of a network of the zoo depends on; `load_model` takes them."""
    size = "Image size of a network of the zoo: N, HxW or HxWxC.  [default: as published]"
    options = [
        click.option("--beta", type=click.IntRange(min=1), help="Repeat factor of a network of the zoo."),
        set_option,
        click.option("--input-size", type=InputSize(), help=size),
        click.option("--num-classes", type=click.IntRange(min=1), help="Classes of a network of the zoo."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def model_options(function: _F) -> _F:
    """The options that say which model is meant; `load_model` takes them."""
    text = "Weights file of a network of the zoo."
    return click.option("--weights", type=click.Path(path_type=Path), help=text)(size_options(function))


def seed_option(function: _F) -> _F:
    text = "Seed of everything random, the initial values of a network without --weights included."
    return click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help=text)(function)


def load_model(
    source: str,
    *,
    weights: Path | None = None,
    beta: int | None = None,
    keywords: tuple[tuple[str, Any], ...] = (),
    input_size: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
    seed: int = 0,
) -> tf.keras.Model:
    """The model of a Keras file, of a SavedModel folder, of a run of `lqr train` or of a name of the zoo.

    A name of the zoo is that network even if there is a file of that name: write `./name` for the file. Without
    weights it has its initial values, which `seed` determines, so that two processes have the same.

    # Raises
        InputError: If there is no such model, if it cannot be read, or if the options do not fit it.
    """
    quiet_tensorflow()
    from larq_rep import zoo

    options = {"beta": beta, "input_shape": input_size, "num_classes": num_classes, **dict(keywords)}
    if source not in zoo.list_models():
        model = _load_file(source, zoo.list_models())
        if any(value is not None for value in (weights, *options.values())):
            raise InputError(
                f"{source} is a file and comes with its weights and sizes: leave out --weights, --beta, --set, "
                "--input-size and --num-classes, which are for networks of the zoo."
            )
        return model

    import tensorflow as tf

    known = zoo.get_network(source).parameters
    options = {name: value for name, value in options.items() if value is not None or name in dict(keywords)}
    for name in options:
        if name not in known:
            raise InputError(f"{source} has no argument {name!r}. It has: {', '.join(known)}.")
    tf.keras.utils.set_random_seed(seed)
    with refusing(ValueError, FileNotFoundError, ImportError):
        return zoo.get_model(source, weights=weights, **options)


def _load_file(source: str, names: list[str]) -> tf.keras.Model:
    from larq_rep.converters import loading
    from larq_rep_cli import runs

    path = Path(source)
    if runs.is_run(path):
        return runs.load(path)
    if not path.exists():
        if os.sep in source or path.suffix:
            raise InputError(f"There is no file or folder {source}.")
        hint = did_you_mean(source, names) or "`lce zoo list` names all networks."
        raise InputError(f"There is neither a network nor a file named {source!r}. {hint}")
    with refusing(loading.LoadingError):
        return loading.load(path)
