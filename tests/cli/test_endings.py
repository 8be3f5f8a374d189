"""How the programs end: at once, and by SIGTERM also as process 1 of a container."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

_PROGRAM = """
import atexit, sys, time
import click
from larq_rep_cli import errors, program

@click.group(cls=program.Group)
def main(): pass

@main.command()
def wait():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        raise errors.InputError("Interrupted.")

class Large:
    def __del__(self):  # As TensorFlow's graphs, which Python takes apart at its end.
        time.sleep(20)

large = Large()
atexit.register(print, "last word")
sys.argv[0] = "program"
main()
"""


def _start(*before):
    command = [*before, sys.executable, "-c", _PROGRAM, "wait"]
    # Under a pytest in the background SIGINT would be ignored.
    heard = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_program_ends_at_once(sent, code):
    process = _start()
    process.send_signal(sent)
    output, errors = process.communicate(timeout=10)
    assert process.returncode == code
    if sent == signal.SIGINT:
        assert errors == "Error: Interrupted.\n" and output == "last word\n"


def test_sigterm_ends_process_1():
    """Linux does not deliver it to a process 1 that does not handle it."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make a PID namespace")
    process = _start(unshare, "--pid", "--fork")
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        child = int(file.read())
    os.kill(child, signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_training_ends_with_its_message(tmp_path, sent, code):
    """Python needed 7 to 24 s to take apart what TensorFlow had built; the epoch that was finished is kept."""
    lqr = [sys.executable, "-m", "larq_rep_cli.lqr", "train", "VGGSmall", "--recipe", "irnet-vgg", "--data", "digits"]
    options = ["--input-size", "16", "--set", "width=2", "--set", "epochs=999", "--out", str(tmp_path / "run")]
    process = subprocess.Popen([*lqr, *options], stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("epoch 1 "):
            process.send_signal(sent)
        if "lqr resume" in line:
            said = time.monotonic()
            break
    process.stderr.read()
    assert process.wait(timeout=20) == code
    assert time.monotonic() - said < 5
    assert re.search("Interrupted|Ended by SIGTERM", line)
    assert (tmp_path / "run" / "1-binary" / "checkpoints" / "epoch-1.index").is_file()
