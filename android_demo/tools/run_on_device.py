#!/usr/bin/env python3
"""Times and checks a network on a phone, by adb alone: installs the app, starts it, and brings its result here.

Exit code 0 if the outputs agree with the desktop's or there are none to compare with, 1 if they differ, 2 if there is
no result, 130 after Ctrl-C. Needs Python 3.10 and adb, nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

PACKAGE = "com.larqrep.benchmark"
ACTIVITY = f"{PACKAGE}/.BenchmarkActivity"
APK = Path(__file__).resolve().parents[1] / "build" / "larq-rep-benchmark.apk"
EXTERNAL = f"/sdcard/Android/data/{PACKAGE}/files"
TEMPORARY = "/data/local/tmp"
POLL_S = 1.0  # Rarely, because adb takes time of the phone that it measures.
POLLS_A_PULL = 10
COMMAND_S = 60  # For one adb command; installing and pushing may take ten times as long.
ENABLE = "Switch on USB debugging in the phone's developer options"

CRASH_LINES = 12

_EXAMPLES = """examples:
  run_on_device.py                                      the first bundled network, 50 runs on one thread
  run_on_device.py RepResNet20 --num_threads 4
  run_on_device.py mine.tflite                          compared with mine.reference.json, if that is beside it
  run_on_device.py --compare --json > phone.json        all bundled networks
  run_on_device.py --serial emulator-5554 --apk my.apk

`assets.py reference mine.tflite` makes mine.reference.json.
"""

# What adb says of a device that cannot be used, and what to do.
_STATES = {
    "unauthorized": "does not trust this computer yet: unlock it and accept the question about USB debugging",
    "authorizing": "is being asked for its trust: unlock it and accept the question about USB debugging",
    "offline": "is offline: plug it in again, or run `adb reconnect`",
    "connecting": "is still connecting: try again in a moment",
    "no permissions": "may not be used by this user: on Linux install the udev rules (Debian: apt install "
    "android-sdk-platform-tools-common), join the group plugdev, and plug it in again",
    "recovery": "is in recovery mode: start Android",
    "sideload": "is in sideload mode: start Android",
    "bootloader": "is in its bootloader: start Android",
    "rescue": "is in rescue mode: start Android",
}

_INSTALL_FAILURES = {
    "INSTALL_FAILED_UPDATE_INCOMPATIBLE": f"the app on the phone has another signature: `adb uninstall {PACKAGE}` "
    "(removes its data), then try again",
    "INSTALL_FAILED_VERSION_DOWNGRADE": f"the app on the phone is newer: `adb uninstall {PACKAGE}` (removes its data), "
    "or use it as it is with --no-install",
    "INSTALL_FAILED_INSUFFICIENT_STORAGE": "the phone has no room left: free some",
    "INSTALL_FAILED_OLDER_SDK": "the phone's Android is older than 7.0 (API 24), the oldest that the app runs on",
    "INSTALL_FAILED_NO_MATCHING_ABIS": "the phone's processor is neither arm64-v8a nor x86_64, or its Android has 32 "
    "bits: the app does not run there",
    "INSTALL_FAILED_USER_RESTRICTED": "the phone forbids it: accept the question on its screen, or switch on `Install "
    "via USB` in its developer options",
    "INSTALL_FAILED_ABORTED": "it was refused on the phone's screen: accept it there",
    "INSTALL_FAILED_VERIFICATION_FAILURE": "the phone's app verification refuses it: switch off `Verify apps over USB` "
    "in its developer options",
    "INSTALL_FAILED_INVALID_APK": "the APK is damaged: build it again (make -C android_demo)",
    "INSTALL_PARSE_FAILED_NO_CERTIFICATES": "the APK is not signed: take build/larq-rep-benchmark.apk, not the "
    "unsigned one",
    "INSTALL_PARSE_FAILED_NOT_APK": "the file is not an APK: build it (make -C android_demo)",
}


class DeviceError(Exception):
    """There is no result; the message says why and what to do."""


def note(message: str) -> None:
    print(f"run_on_device.py: {message}", file=sys.stderr)


class Adb:
    """Runs adb commands on one device, and turns its failures into a `DeviceError`."""

    def __init__(self) -> None:
        path = shutil.which("adb")
        if path is None:
            raise DeviceError(
                "adb is not on PATH. Install it (Debian: apt install adb), or add the folder platform-tools of an "
                "Android SDK to PATH."
            )
        self.command = [path]

    def run(self, *arguments: str, timeout: float = COMMAND_S) -> subprocess.CompletedProcess[str]:
        """The finished command, whatever its exit code, with its output as text.

        # Raises
            DeviceError: If adb cannot reach the device, or does not answer.
        """
        try:
            done = subprocess.run(
                [*self.command, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"adb {arguments[0]} has not ended within {timeout:g} s. Plug the phone in again, or run `adb "
                "kill-server`."
            ) from None
        except OSError as error:
            raise DeviceError(f"{self.command[0]} does not start: {error}. Install adb again.") from error
        if done.returncode and (said := re.search(r"(?:error: |adb: )(device .*|no devices.*|closed)", done.stderr)):
            raise DeviceError(
                f"The phone is gone ({said[1].strip()}): check the cable, and {ENABLE[0].lower()}{ENABLE[1:]}."
            )
        return done

    def shell(self, *words: str, timeout: float = COMMAND_S) -> subprocess.CompletedProcess[str]:
        """Runs a command on the device; its shell gets each word whole."""
        return self.run("shell", shlex.join(words), timeout=timeout)

    def choose(self, serial: str | None) -> None:
        """Chooses the device: the one that is asked for, or the only one."""
        listing = self.run("devices", "-l")
        if listing.returncode:
            raise DeviceError(f"`adb devices` fails: {_last(listing)}")
        found = dict(
            re.findall(r"^(\S+)\s+(no permissions|\S+)", listing.stdout.partition("attached")[2], re.MULTILINE)
        )
        if not found:
            raise DeviceError(f"No phone is connected. {ENABLE}, and plug it in.")
        wanted = serial or os.environ.get("ANDROID_SERIAL")
        if wanted is None:
            usable = [name for name, state in found.items() if state == "device"] or list(found)
            if len(usable) > 1:
                raise DeviceError(f"There are {len(usable)} devices: choose one with --serial, of {', '.join(usable)}.")
            wanted = usable[0]
        if wanted not in found:
            raise DeviceError(f"There is no device {wanted}. Connected: {', '.join(found)}.")
        if (state := found[wanted]) != "device":
            raise DeviceError(f"{wanted} {_STATES.get(state, f'is in the state {state}: start Android')}.")
        self.command += ["-s", wanted]


def _last(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that a command printed, or its exit code."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def install(adb: Adb, apk: Path | None, forbidden: bool) -> None:
    """Installs the APK, unless the phone has the app from a file of the same bytes.

    # Arguments
        apk: The file that the user gave; by default the one that was built.
        forbidden: Whether to take the app that is on the phone, whichever it is.
    """
    path = re.search(r"^package:(/.*/base\.apk)\s*$", adb.shell("pm", "path", PACKAGE).stdout, re.MULTILINE)
    if forbidden:
        if not path:
            raise DeviceError("The app is not on the phone. Leave out --no-install, or install it.")
        return
    file = apk or APK
    if not file.is_file():
        if apk or not path:
            remedy = (
                "Give another with --apk." if apk else "Build it with `make -C android_demo`, or give one with --apk."
            )
            raise DeviceError(f"There is no {file}. {remedy}")
        note(f"{file.name} is not built: the app that is on the phone is taken.")
        return
    if path:
        # toybox has sha256sum since Android 6; where it fails, the app is installed again.
        digest = adb.shell("sha256sum", path[1]).stdout.split(" ")[0]
        if digest == hashlib.sha256(file.read_bytes()).hexdigest():
            return
    note(f"installing {file}")
    done = adb.run("install", "-r", str(file), timeout=10 * COMMAND_S)
    said = done.stdout + done.stderr
    if done.returncode or "Success" not in said:
        found = re.search(r"INSTALL_\w+", said)
        code = found[0] if found else "no code"
        reason = _INSTALL_FAILURES.get(code, f"adb says: {_last(done)}")
        raise DeviceError(f"The app cannot be installed ({code}): {reason}.")


@contextlib.contextmanager
def pushed(adb: Adb, files: dict[str, Path]) -> Iterator[dict[str, str]]:
    """Copies files to the phone under these names, into a folder of their own that is removed at the end.

    Yields their paths there by name.
    """
    name = f"run_on_device-{secrets.token_hex(4)}"
    reasons = []
    # Some devices keep the shell out of an app's folder; apps may read the other one.
    for parent in (EXTERNAL, TEMPORARY):
        folder = f"{parent}/{name}"
        try:
            if (reason := _push(adb, files, folder)) is None:
                yield {file: f"{folder}/{file}" for file in files}
                return
            reasons.append(reason)
        finally:
            with contextlib.suppress(DeviceError):
                adb.shell("rm", "-rf", folder)
    raise DeviceError(f"The phone takes no files: {'; '.join(reasons)}. Free some room on it.")


def _push(adb: Adb, files: dict[str, Path], folder: str) -> str | None:
    """Copies files to a new folder; why not, if that fails."""
    done = adb.shell("mkdir", "-p", folder)
    for name, file in files.items():
        if not done.returncode:
            done = adb.run("push", str(file.absolute()), f"{folder}/{name}", timeout=10 * COMMAND_S)
    # The app is another user. In its own folder everything is readable for it, and modes cannot be changed.
    if not done.returncode and folder.startswith(TEMPORARY):
        done = adb.shell("chmod", "-R", "a+rX", folder)
    return f"{folder}: {_last(done)}" if done.returncode else None


class Log:
    """The lines of the phone's log from now on; those of others stay in it."""

    def __init__(self, adb: Adb):
        self.adb = adb
        newest = adb.run("logcat", "-d", "-v", "threadtime", "-t", "1").stdout
        times = re.findall(r"^(\d\d-\d\d \d\d:\d\d:\d\d\.\d+) ", newest, re.MULTILINE)
        self.since = ("-T", times[-1]) if times else ()

    def lines(self) -> list[tuple[str, str, str]]:
        """Process, tag and message of the app's lines and those of crashes."""
        tags = ("larq-rep:I", "AndroidRuntime:E", "libc:F", "DEBUG:F")
        text = self.adb.run("logcat", "-d", "-v", "threadtime", *self.since, "-s", *tags).stdout
        return re.findall(r"^\S+ \S+ +(\d+) +\d+ \w (\S+) *: ([^\r\n]*)", text, re.MULTILINE)


def joined(lines: list[tuple[str, str, str]], output: str) -> tuple[bool, str | None]:
    """Whether the log has any line of the result, and the result if it has all."""
    parts = {}
    count = 0
    for _, tag, message in lines:
        if tag == "larq-rep" and (found := re.match(rf"{re.escape(output)} (\d+)/(\d+) (.*)", message)):
            parts[int(found[1])], count = found[3], int(found[2])
    whole = count > 0 and set(parts) == set(range(1, count + 1))
    return bool(parts), "".join(parts[i] for i in sorted(parts)) if whole else None


def crash(lines: list[tuple[str, str, str]]) -> str | None:
    """What the log says of a crash of the app."""
    # The kernel's name of a process has the last 15 letters.
    ours = re.compile(rf"Process: {re.escape(PACKAGE)},|>>> {re.escape(PACKAGE)} <<<|\({re.escape(PACKAGE[-15:])}\)")
    crashed = {process for process, tag, message in lines if tag != "larq-rep" and ours.search(message)}
    said = [f"  {message}" for process, tag, message in lines if process in crashed and tag != "larq-rep"]
    return "\n".join(said[:CRASH_LINES]) if said else None


def wait(adb: Adb, log: Log, output: str, timeout: float) -> dict[str, Any]:
    """The app's result, from its file, or from the log where the shell may not read that.

    # Raises
        DeviceError: If the app crashes, is ended by others, or takes longer than `timeout` seconds.
    """
    start, polls, gone = time.monotonic(), 0, 0
    while True:
        polls += 1
        lines = log.lines()
        begun, text = joined(lines, output)
        # Some phones keep no log.
        if begun or polls % POLLS_A_PULL == 0:
            result = _parsed(_pull(adb, output)) or _parsed(text)
            if result is not None:
                return result
            if text is not None:
                raise DeviceError(f"The app's result is damaged: {text[:200]!r}. Is it the app of this checkout?")
        if said := crash(lines):
            raise DeviceError(f"The app has crashed. Please report these lines of the phone's log:\n{said}")
        # pidof has the exit code 1 if there is no such process.
        gone = gone + 1 if adb.shell("pidof", PACKAGE).returncode == 1 else 0
        if gone > 2:
            raise DeviceError("The app has ended without a result: someone closed it, or Android needed its memory.")
        if time.monotonic() - start > timeout:
            raise DeviceError(
                f"There is no result after {timeout:g} s. Unlock the phone's screen, ask for fewer runs (--num_runs), "
                "or wait longer (--timeout)."
            )
        _tell(f"{time.monotonic() - start:4.0f} s on the phone")
        time.sleep(POLL_S)
        _tell("")


def _tell(text: str) -> None:
    """Shows how it stands in the last line of a terminal, in place of what stood there."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _pull(adb: Adb, output: str) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        done = adb.run("pull", f"{EXTERNAL}/{output}", str(file))
        return file.read_text("utf-8", errors="replace") if not done.returncode and file.is_file() else None


def _parsed(text: str | None) -> dict[str, Any] | None:
    """The result; `None` if it is none, or not whole yet."""
    try:
        result = json.loads(text or "")
    except ValueError:
        return None
    return result if isinstance(result, dict) and "status" in result else None


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Does everything on the phone, and returns the app's result."""
    files = local_files(arguments.model, arguments.reference)
    adb = Adb()
    adb.choose(arguments.serial)
    install(adb, arguments.apk, arguments.no_install)
    output = f"run_on_device-{secrets.token_hex(4)}.json"
    with contextlib.ExitStack() as stack:
        paths = stack.enter_context(pushed(adb, files)) if files else {}
        options = [f"--output={output}"]
        if arguments.model is not None:
            options.append(f"--model={next(iter(paths.values()), arguments.model)}")
        for name in ("num_threads", "warmup_runs", "num_runs", "top", "implementation"):
            if (value := getattr(arguments, name)) is not None:
                options.append(f"--{name}={value}")
        options += [f"--{name}" for name in ("no_fuse", "compare") if getattr(arguments, name)]
        log = Log(adb)
        stack.callback(_clean, adb, f"{EXTERNAL}/{output}")
        # The shell of the phone takes off one layer of quotes, the app another.
        done = adb.shell("am", "start", "-S", "-W", "-n", ACTIVITY, "--es", "args", shlex.join(options))
        if done.returncode or re.search(r"^(Error|.*Exception)\b", done.stdout + done.stderr, re.MULTILINE):
            reason = " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[:3])
            raise DeviceError(f"The app does not start: {reason}. Install the one of this checkout (--apk).")
        result = wait(adb, log, output, arguments.timeout)
    if result["status"] != "ok":
        raise DeviceError(f"The app says: {result.get('error', result['status'])}")
    return result


def _clean(adb: Adb, file: str) -> None:
    """Ends the app, which goes on after Ctrl-C or a timeout, and removes its file."""
    with contextlib.suppress(DeviceError):
        adb.shell("am", "force-stop", PACKAGE)
        adb.shell("rm", "-f", file)


def local_files(model: str | None, reference: Path | None) -> dict[str, Path]:
    """The files to copy to the phone, by their names there, the model first; none for a bundled network."""
    if model is None or not (Path(model).is_file() or "/" in model or model.endswith(".tflite")):
        if reference is not None:
            raise DeviceError("--reference goes with a file of a model; bundled networks have their own.")
        return {}
    file = Path(model)
    beside = file.name.removesuffix(".tflite") + ".reference.json"
    if reference is None and (file.parent / beside).is_file():
        reference = file.parent / beside
    files = {file.name: file, **({beside: reference} if reference else {})}
    for path in files.values():
        if not path.is_file():
            raise DeviceError(f"There is no file {path}.")
    return files


def verdict(result: dict[str, Any]) -> str:
    """`agrees`, `differs` or `no reference`."""
    return str(result.get("verdict") or result.get("agreement", {}).get("verdict", "no reference"))


def show(result: dict[str, Any]) -> None:
    """Prints a result as lce-run does, with the verdict."""
    for row in result.get("compare", [result]):
        if "compare" not in result:
            for entry in row.get("top", []):
                print(f"{entry['index']:6d} {entry['value']:12.5g}  {entry.get('class', '')}".rstrip())
        print(
            f"{row.get('network') or PurePosixPath(row['file']).name}: {row['bytes'] / 1e6:.2f} MB, "
            f"median {row['median_ms']:.3f} ms (p10 {row['p10_ms']:.3f}, p90 {row['p90_ms']:.3f}) of "
            f"{row['num_runs']} runs, {row['num_threads']} threads, {row['implementation']}: {_compared(row)}"
        )
    device = result.get("device", {})
    about = [str(device[name]) for name in ("manufacturer", "model", "soc", "android") if device.get(name)]
    words = {"agrees": "The outputs are the desktop's.", "differs": "THE OUTPUTS ARE NOT THE DESKTOP'S."}
    print(f"{', '.join(about) or 'the phone'}. {words.get(verdict(result), 'There is no reference to compare with.')}")


def _compared(row: dict[str, Any]) -> str:
    agreement = row.get("agreement", {})
    text = str(agreement.get("verdict", "no reference"))
    if agreement.get("max_difference") is not None and agreement.get("range") is not None:
        text += f", {'same' if agreement.get('top1') else 'other'} top 1, difference {agreement['max_difference']:.2g} "
        text += f"of {agreement['range']:.3g}"
    return text + ", not equal to portable" * (row.get("equals_portable") is False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "run_on_device.py",
        description="Times and checks a network on a phone that adb reaches.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a bundled network, or a .tflite file of this computer"
    )
    parser.add_argument("--serial", metavar="S", help="the device, if there are several (also: ANDROID_SERIAL)")
    parser.add_argument("--apk", type=Path, metavar="FILE", help="the app [android_demo/build/larq-rep-benchmark.apk]")
    parser.add_argument("--no-install", action="store_true", help="take the app that is on the phone, whichever it is")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="outputs to compare with [MODEL.reference.json]")
    parser.add_argument("--num_threads", type=int, metavar="N", help="threads [1]")
    parser.add_argument("--warmup_runs", type=int, metavar="N", help="runs before the timed ones [5]")
    parser.add_argument("--num_runs", type=int, metavar="N", help="timed runs [50]")
    parser.add_argument("--top", type=int, metavar="N", help="largest outputs to print [5]")
    parser.add_argument("--implementation", metavar="NAME", help="instruction set to use instead of the best one")
    parser.add_argument("--no_fuse", action="store_true", help="leave the neighbours of LCE's operators to TFLite")
    parser.add_argument(
        "--compare", action="store_true", help="all bundled networks, the best and portable, all threads"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the app's JSON into this file")
    parser.add_argument("--json", action="store_true", help="print the app's JSON")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds to wait [300, with --compare 1800]")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point.

    # Returns
        0 if the outputs agree or there is no reference, 1 if they differ, 2 without a result, 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    if arguments.timeout is None:
        arguments.timeout = 1800 if arguments.compare else 300
    try:
        result = run(arguments)
        text = json.dumps(result, indent=2)
        if arguments.output:
            unfinished = arguments.output.with_name(f".{arguments.output.name}.{os.getpid()}")
            unfinished.write_text(text + "\n", "utf-8")
            unfinished.replace(arguments.output)
        if arguments.json:
            print(text)
        else:
            show(result)
    except (DeviceError, OSError) as error:
        note(str(error))
        return 2
    except (KeyError, TypeError) as error:
        note(f"The app's JSON is of another version ({error!r}): install the app of this checkout (--apk).")
        return 2
    except KeyboardInterrupt:
        note("interrupted.")
        return 130
    return 1 if verdict(result) == "differs" else 0


if __name__ == "__main__":
    sys.exit(main())
