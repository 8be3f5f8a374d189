"""Continues a training in a new process after its workers were lost."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from pathlib import Path

from larq_rep_cli.errors import Terminated
from larq_rep_cli.runs import how_to_go_on, interrupted
from larq_rep_cli.terminal import note

# Exit status of a training that can continue in a new process; EX_TEMPFAIL of sysexits.h.
WORKER_LOST = 75
_PAUSE_SECONDS = 5.0
# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1


def _finished(folder: Path) -> tuple[int, int]:
    """Phase and epoch of the last checkpoint of a run."""
    found = [
        (int(match[1]), int(match[2]))
        for path in folder.glob("*/checkpoints/*.index")
        if (match := re.search(r"(\d+)-[^/]*/checkpoints/epoch-(\d+)\.index$", path.as_posix()))
    ]
    return max(found, default=(0, 0))


def supervise(folder: Path, restarts: int) -> int:
    """Continues in a new process, and in another one whenever that ends because a worker was lost.

    TensorFlow cannot connect its workers a second time, and it may abort its process. It must not be imported before
    this call: its threads would not survive in the new process. This process waits, and ends as the last new process
    does.

    # Arguments
        folder: The folder of the run.
        restarts: How many restarts may follow each other without a finished epoch.

    # Returns
        In the new process: the number of new processes before it.

    # Raises
        InputError: In this process, if it is interrupted.
    """
    child = number = in_vain = 0
    try:
        while True:
            parent, finished = os.getpid(), _finished(folder)
            child = os.fork()
            if child == 0:
                # While TensorFlow waits for a worker, Python handles no signals: the parent process ends this one.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                _end_with(parent)
                return number
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            child = 0
            if code >= 0 and code != WORKER_LOST:
                raise SystemExit(code)
            if code < 0:
                note(f"The training was ended by {signal.Signals(-code).name}.")
            if _finished(folder) > finished:
                in_vain = 0
            if in_vain == restarts:
                break
            number, in_vain = number + 1, in_vain + 1
            note(
                f"Restart {in_vain} of {restarts}: going on from the last checkpoint as soon as all workers are there."
            )
            time.sleep(_PAUSE_SECONDS)
    except (KeyboardInterrupt, Terminated) as ending:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if isinstance(ending, Terminated):
            raise
        raise interrupted(folder) from None
    note(f"No restart is left. {how_to_go_on(folder)} Do this on all workers.")
    raise SystemExit(1)


def _end_with(parent: int) -> None:
    """Lets Linux kill this process when its parent ends. Python cannot: TensorFlow holds its lock while it waits."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
