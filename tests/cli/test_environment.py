"""The commands in what shells, services, notebooks and containers set, and how they end.

Most cases are processes of their own, each of which imports TensorFlow: they stand for several variables at once.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import tensorflow as tf
from click.testing import CliRunner

from larq_rep.zoo import stored
from larq_rep_cli import errors, files, terminal
from larq_rep_cli import program as program_module
from larq_rep_cli.lce import main as lce
from larq_rep_cli.lqr import main as lqr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of stock TFLite, a run's configuration, an image, a page that is no checkpoint."""
    folder = tmp_path_factory.mktemp("environment")
    inputs = tf.keras.Input((4, 4, 1))
    network = tf.keras.Model(inputs, tf.keras.layers.GlobalAveragePooling2D()(inputs), name="own")
    (folder / "grün.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())
    network.save(folder / "own.h5")
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text("{}")
    (folder / "images" / "0").mkdir(parents=True)
    (folder / "page.pth").write_text("<!doctype html>")
    return folder


COMMANDS = {
    "convert": "lce convert page.pth -o new.tflite",
    "fold": "lce fold grün.tflite -o new.tflite --force",
    "quantize": "lce quantize grün.tflite -o new.tflite --calibrate images",
    "verify": "lce verify page.pth grün.tflite",
    "inspect": "lce inspect grün.tflite",
    "benchmark": "lce benchmark grün.tflite --num_runs 2 --warmup_runs 0 --plot bars.png --force",
    "import": "lce import page.pth -o new.h5",
    "evaluate": "lce evaluate own.h5 --images images",
    "zoo list": "lce zoo list",
    "zoo show": "lce zoo show ResNet2",
    "train": "lqr train ResNet2 --recipe recu --data digits --out new",
    "resume": "lqr resume run",
    "recipes": "lqr recipes",
    "lqr evaluate": "lqr evaluate own.h5 --data nothing",
    "export": "lqr export run -o new.tflite",
    "plot": "lqr plot run -o new.png",
    "ablate": "lqr ablate --out own.h5 --rows IR-Net:?ResNet-20",
}
# What they need of larq_rep needs no TensorFlow.
LIGHT = ("fold", "inspect", "zoo list", "zoo show")
# With these files the others have nothing to do, which they say.
SUCCEED = ("fold", "inspect", "benchmark", "zoo list", "recipes")


def program(command):
    name, *args = COMMANDS[command].split()
    return [sys.executable, "-m", f"larq_rep_cli.{name}", *args]


def started(command, folder, unset=(), **variables):
    """The exit code of a command and what it printed, in an environment with these variables."""
    environment = {key: value for key, value in os.environ.items() if key not in ("TF_CPP_MIN_LOG_LEVEL", *unset)}
    done = subprocess.run(
        program(command), cwd=folder, env={**environment, **variables}, capture_output=True, timeout=600
    )
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def check(command, code, output, errors):
    assert code == (0 if command in SUCCEED else 2), errors
    assert "Traceback" not in errors
    if command in SUCCEED:
        assert output and errors == ""
    else:
        # The reason, and nothing of TensorFlow, of its libraries or of warnings.
        assert errors.startswith("Error: ") and not any(x in errors for x in ("E0000", "I0000", "WARNING", "Warning"))


def test_all_commands_are_tried():
    named = {" ".join(command.split()[1:3]) for command in COMMANDS.values()}
    for main in (lce, lqr):
        for name in main.list_commands(None):
            command = main.get_command(None, name)
            subs = command.list_commands(None) if isinstance(command, click.Group) else []
            for whole in [f"{name} {sub}" for sub in subs] or [name]:
                assert any(f"{tried} ".startswith(f"{whole} ") for tried in named), whole


def test_a_command_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    for name in ("import_", "two"):
        code = f"import click\n@click.command()\ndef {name}(): click.echo('this is {name}')\n"
        (tmp_path / "mine" / f"{name}.py").write_text(code)
    (tmp_path / "mine" / "_shared.py").write_text("raise AssertionError")
    monkeypatch.syspath_prepend(tmp_path)
    group = program_module.Group("mine", package="mine")
    assert group.list_commands(None) == ["import", "two"]
    assert CliRunner().invoke(group, ["import"]).stdout == "this is import_\n" and "mine.two" not in sys.modules
    assert "Did you mean two?" in CliRunner().invoke(group, ["twoo"]).stderr


def test_every_command_begins_with_quiet_tensorflow(folder):
    """So no command imports TensorFlow before larq_rep, or lets it speak. All of them in one process without it."""
    commands = [command.split() for name, command in COMMANDS.items() if name not in LIGHT]
    code = f"""
import sys
from larq_rep_cli import lce, lqr, terminal
class Reached(BaseException): pass
def reached(*args, **kwargs): raise Reached
terminal.quiet_tensorflow = reached
for name, *args in {commands!r}:
    try:
        {{"lce": lce, "lqr": lqr}}[name].main(args, standalone_mode=False)
    except Reached:
        loaded = {{"tensorflow", "keras", "larq", "larq_rep", "larq_rep_runtime", "matplotlib"}} & set(sys.modules)
        assert not loaded, (name, args, loaded)
    else:
        raise AssertionError((name, args))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_commands_that_need_no_tensorflow(folder, tmp_path):
    """All in one process, in which `import larq_rep` is then as ever."""
    content = (folder / "grün.tflite").read_bytes()
    (tmp_path / "grün.tflite").write_bytes(content)
    (tmp_path / "cut.tflite").write_bytes(content[:200])
    cases = [(COMMANDS[name], 0 if name in SUCCEED else 2) for name in LIGHT]
    for command in ("lce inspect", "lce fold -o new.tflite --force"):
        cases += [(f"{command} grün.tflite --json", 0), (f"{command} none.tflite", 2), (f"{command} cut.tflite", 2)]
    cases += [("lce zoo show RepResNet20", 0), ("lce zoo show AlexNet --no-layers --json", 0)]
    cases += [("lce zoo list *react* --json", 0), ("lce zoo list --family nothing", 2), ("lce zoo list nothing", 2)]
    code = f"""
import sys
from larq_rep_cli import lce
for command, expected in {cases!r}:
    try:
        lce.main(command.split()[1:])
    except SystemExit as end:
        assert end.code == expected, (command, end.code)
    loaded = {{"tensorflow", "keras", "larq", "larq_rep", "larq_compute_engine", "matplotlib"}} & set(sys.modules)
    assert not loaded, (command, loaded)
import larq_rep
import tensorflow as tf
assert tf.keras.utils.get_custom_objects()["RPReLU"] is larq_rep.layers.RPReLU
assert larq_rep.zoo.list_models() and larq_rep.converters.describe
lce.main(["inspect", "grün.tflite"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Did you mean ResNet20" in done.stderr


ENVIRONMENTS = {
    "import": dict(TF_CPP_MIN_LOG_LEVEL="3", TF_USE_LEGACY_KERAS="0", KERAS_BACKEND="torch", PYTHONWARNINGS="error"),
    "benchmark": dict(
        TF_CPP_MIN_LOG_LEVEL="2",
        TF_USE_LEGACY_KERAS="False",
        KERAS_BACKEND="jax",
        MPLBACKEND="module://nowhere",
        PYTHONIOENCODING="ascii",
        LC_ALL="C",
        NO_COLOR="1",
        COLUMNS="10",
        CUDA_VISIBLE_DEVICES="",
    ),
    "recipes": dict(
        TF_CPP_MIN_LOG_LEVEL="",
        TF_USE_LEGACY_KERAS="true",
        PYTHONOPTIMIZE="2",
        FORCE_COLOR="1",
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
        CUDA_VISIBLE_DEVICES="-1",
        HOME="/nowhere",
        PYTHONHASHSEED="1",
    ),
}


@pytest.mark.parametrize("command", ENVIRONMENTS)
def test_variables(command, folder):
    check(command, *started(command, folder, **ENVIRONMENTS[command]))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_variables_for_every_command(command, environment, folder):
    check(command, *started(command, folder, unset=("HOME",), **ENVIRONMENTS[environment]))


@pytest.mark.parametrize("level, quiet", [("0", False), pytest.param("1", False, marks=pytest.mark.slow)])
def test_the_users_level_shows_what_tensorflow_says(level, quiet, folder):
    code, _, errors = started("recipes", folder, TF_CPP_MIN_LOG_LEVEL=level)
    assert code == 0 and errors != ""


def test_closed_streams(folder):
    """Their numbers would be those of the next files."""
    command = subprocess.list2cmdline(program("benchmark"))
    done = subprocess.run(f"{command} <&- >&- 2>&-", cwd=folder, shell=True)
    assert done.returncode == 0


@pytest.mark.parametrize("command", ["zoo list", pytest.param("recipes", marks=pytest.mark.slow)])
def test_nobody_reads_the_output(command, folder):
    process = subprocess.Popen(program(command), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(), errors) == (141, b"")


def test_help_needs_no_reader():
    """Also where a command has not begun yet."""
    process = subprocess.Popen([sys.executable, "-m", "larq_rep_cli.lce", "--help"], stdout=subprocess.PIPE)
    process.stdout.close()
    assert process.wait() == 141


def test_a_full_disk(folder):
    with open("/dev/full", "w") as full:
        done = subprocess.run(program("inspect"), cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "Error: No space left on device.\n")


def test_interrupted(folder):
    # Under a pytest in the background the signal would be ignored.
    process = subprocess.Popen(
        program("recipes"),
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    # Before its commands begin Python itself would answer.
    while "tensorflow" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1]
    assert process.returncode == 130 and errors.strip() == "Interrupted."


# How a command ends


class Stop(BaseException):
    pass


@pytest.fixture
def ending(monkeypatch, folder):
    """Ends a command of each program with an exception."""

    def end(error, name):
        def fail(*args, **kwargs):
            raise error

        # What each command calls first.
        monkeypatch.setattr(terminal, "quiet_tensorflow", fail)
        monkeypatch.setattr(files, "read_file", fail)
        monkeypatch.setattr(stored, "forms", fail)
        main = {"lce": lce, "lqr": lqr}[COMMANDS[name].split()[0]]
        monkeypatch.chdir(folder)
        return CliRunner().invoke(main, COMMANDS[name].split()[1:])

    return end


@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_is_no_difference_and_no_bad_input(name, ending):
    """Also the end of a file, which click takes for Ctrl-D, and a nested group."""
    for error in (RuntimeError("boom"), EOFError("boom"), OSError(5, "boom"), MemoryError("boom"), AssertionError()):
        result = ending(error, name)
        assert result.exit_code == 3 and result.stdout == ""
        # click ends the line of a Ctrl-D.
        lines = result.stderr.strip().splitlines()
        assert lines[0] == "Traceback (most recent call last):" and type(error).__name__ in lines[-2]
        for wanted in ("report", "larq-rep 0.", "tensorflow 2.", "Python 3.", shlex.join(COMMANDS[name].split()[1:])):
            assert wanted in lines[-1]


@pytest.mark.parametrize(
    "error, code, message",
    [
        (KeyboardInterrupt(), 130, "Interrupted."),
        (SystemExit(1), 1, ""),
        (SystemExit(75), 75, ""),
        (SystemExit(None), 0, ""),
        (errors.InputError("bad"), 2, "Error: bad"),
        (OSError(28, "No space left on device"), 2, "Error: No space left on device."),
    ],
)
def test_other_ends(error, code, message, ending, monkeypatch):
    monkeypatch.setattr(os, "dup2", lambda *args: None)
    for name in ("inspect", "zoo list", "recipes"):
        result = ending(error, name)
        assert (result.exit_code, result.stderr.strip(), result.stdout) == (code, message, "")


def test_exit_codes_are_in_the_help():
    for main in (lce, lqr):
        text = " ".join(CliRunner().invoke(main, ["--help"]).stdout.split())
        assert "3 if a command fails through its own fault" in text


def test_names_that_the_terminal_cannot_show(tmp_path):
    """Names of files are bytes."""
    command = [sys.executable, "-m", "larq_rep_cli.lce", "inspect", "\udce4.tflite"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "Error: There is no file \\udce4.tflite.\n"
