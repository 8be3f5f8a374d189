"""run_on_device.py against a phone that `fake_adb.py` plays."""

import ast
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import run_on_device as script

HERE = Path(__file__).resolve().parent
EXTERNAL = f"/sdcard/Android/data/{script.PACKAGE}/files"
OLD = f"""11-28 09:00:00.000   999   999 E AndroidRuntime: FATAL EXCEPTION: main
11-28 09:00:00.000   999   999 E AndroidRuntime: Process: {script.PACKAGE}, PID: 999
11-28 09:00:00.001   999   999 I larq-rep: result.json 1/1 {{"status": "ok"}}
11-29 09:59:59.999     1     1 I others : the newest line
"""


def result(verdict="agrees", **changes):
    """A result as the app writes it."""
    return {
        "schema": 1,
        "status": "ok",
        "network": "ResNet20",
        "file": "ResNet20.tflite",
        "bytes": 65098,
        "implementation": "neon",
        "num_threads": 2,
        "num_runs": 50,
        "median_ms": 1.25,
        "p10_ms": 1.2,
        "p90_ms": 1.5,
        "top": [{"index": 7, "value": 9.5, "class": "seven"}, {"index": 1, "value": -2.0}],
        "agreement": {"top1": verdict == "agrees", "max_difference": 3e-6, "range": 12.5, "verdict": verdict},
        "device": {"manufacturer": "Ünfug", "model": "Fake Phone"},
        **changes,
    }


class Phone:
    """The fake phone, and the script that runs on it."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder = folder / "phone"
        (self.folder / "root").mkdir(parents=True)
        (self.folder / "log").write_text(OLD)
        bin = folder / "bin"
        bin.mkdir()
        adb = bin / "adb"
        # Without site packages Python starts in half the time.
        adb.write_text(f"#!{sys.executable} -IS\n{(HERE / 'fake_adb.py').read_text()}")
        adb.chmod(0o755)
        self.apk = folder / "app.apk"
        self.apk.write_bytes(b"the app")
        monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_ADB", str(self.folder))
        monkeypatch.delenv("ANDROID_SERIAL", raising=False)
        monkeypatch.setattr(script, "POLL_S", 0.01)
        monkeypatch.setattr(script, "POLLS_A_PULL", 2)
        monkeypatch.setattr(script, "APK", self.apk)
        self.behave()

    def behave(self, **how):
        how = {"devices": {"SERIAL": "device"}, "result": result(), **how}
        (self.folder / "phone").write_text(repr({key: x for key, x in how.items() if x is not None}))

    def calls(self, *words):
        """The calls that begin with these words, without the choice of the device."""
        calls = [ast.literal_eval(line) for line in (self.folder / "calls").read_text().splitlines()]
        return [call for call in (c[2 * (c[0] == "-s") :] for c in calls) if call[: len(words)] == [*words]]

    @property
    def started(self):
        return ast.literal_eval((self.folder / "started").read_text())

    def files(self):
        """What is on the phone, without the app."""
        root = self.folder / "root"
        return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != "base.apk"]


@pytest.fixture
def phone(tmp_path, monkeypatch):
    return Phone(tmp_path, monkeypatch)


def test_a_bundled_network_that_agrees(phone, capsys):
    assert (
        script.main(["ResNet20", "--num_threads", "2", "--num_runs=50", "--no_fuse", "--implementation", "neon"]) == 0
    )
    assert {key: x for key, x in phone.started.items() if key != "--output"} == {
        "--model": "ResNet20",
        "--num_threads": "2",
        "--num_runs": "50",
        "--no_fuse": "",
        "--implementation": "neon",
    }
    out = capsys.readouterr().out
    assert "     7          9.5  seven\n     1           -2\n" in out
    assert "ResNet20: 0.07 MB, median 1.250 ms (p10 1.200, p90 1.500) of 50 runs, 2 threads, neon: agrees" in out
    assert "Ünfug, Fake Phone. The outputs are the desktop's." in out
    # The app was not there; now it is, and nothing else is left.
    assert phone.calls("install", "-r", str(phone.apk))
    assert phone.files() == []
    assert (phone.folder / "log").read_text().startswith(OLD)


def test_a_planted_difference_ends_with_1(phone, capsys, tmp_path):
    phone.behave(result=result("differs"))
    file = tmp_path / "saved.json"
    assert script.main(["--json", "--output", str(file)]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(file.read_text()) == result("differs")
    assert script.main([]) == 1
    assert "THE OUTPUTS ARE NOT THE DESKTOP'S" in capsys.readouterr().out


def test_no_reference_is_said(phone, capsys):
    phone.behave(result=result(agreement={"top1": None, "max_difference": None, "verdict": "no reference"}))
    assert script.main([]) == 0
    assert "There is no reference to compare with." in capsys.readouterr().out


def test_compare(phone, capsys):
    rows = [result(), result("differs", implementation="portable", equals_portable=False)]
    phone.behave(result={"status": "ok", "compare": rows, "verdict": "differs"})
    assert script.main(["--compare"]) == 1
    assert "--compare" in phone.started
    out = capsys.readouterr().out
    assert out.count("ResNet20: 0.07 MB") == 2
    assert "portable: differs, other top 1, difference 3e-06 of 12.5, not equal to portable\n" in out


@pytest.mark.parametrize("refuses", [[], [EXTERNAL]], ids=["app folder", "app folder refused"])
def test_names_with_blanks_and_quotes_arrive_whole(phone, tmp_path, refuses, capsys):
    phone.behave(refuses=refuses)
    name = """it's "my" $HOME `ls` \\net;  é.tflite"""
    content = b"weights" * 100
    (tmp_path / name).write_bytes(content)
    (tmp_path / name.replace(".tflite", ".reference.json")).write_text("{}")
    assert script.main([str(tmp_path / name), "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["sha256"] == hashlib.sha256(content).hexdigest()
    assert got["compared"]
    assert got["file"].endswith(f"/{name}")
    assert got["file"].startswith("/data/local/tmp/" if refuses else EXTERNAL)
    # The app, which is another user, may read the other folder.
    assert bool(phone.calls("shell", f"chmod -R a+rX {Path(got['file']).parent}")) == bool(refuses)
    assert phone.files() == []


def test_a_reference_of_another_name(phone, tmp_path, capsys):
    model, other = tmp_path / "m.tflite", tmp_path / "other.json"
    model.write_bytes(b"TFL3")
    other.write_text("{}")
    assert script.main([str(model), "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["compared"]
    assert script.main([str(model), "--reference", str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["compared"]


def test_the_log_serves_where_the_file_cannot_be_read(phone, capsys):
    phone.behave(hides_file=True)
    assert script.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result()


def test_the_file_serves_where_there_is_no_log(phone, capsys):
    phone.behave(no_log=True)
    assert script.main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result()


def test_the_app_is_installed_only_if_the_phone_has_other_bytes(phone):
    adb = script.Adb()
    adb.choose(None)

    def installations(apk=None, forbidden=False):
        script.install(adb, apk, forbidden)
        return len(phone.calls("install"))

    assert installations() == installations() == 1
    phone.apk.write_bytes(b"the next app")
    assert installations(forbidden=True) == 1
    assert installations(phone.apk) == 2
    phone.apk.unlink()
    assert installations() == 2


@pytest.mark.parametrize(
    "devices, said",
    [
        ({}, "No phone is connected. Switch on USB debugging"),
        ({"S": "unauthorized"}, "S does not trust this computer yet: unlock it"),
        ({"S": "offline"}, "S is offline: plug it in again"),
        ({"S": "no permissions (user in plugdev group; are your udev rules wrong?); see [http://x]"}, "udev rules"),
        ({"S": "recovery"}, "S is in recovery mode"),
        ({"A": "device", "B": "device", "C": "offline"}, "2 devices: choose one with --serial, of A, B."),
    ],
)
def test_devices_that_cannot_be_used(phone, capsys, devices, said):
    phone.behave(devices=devices)
    assert script.main([]) == 2
    assert said in capsys.readouterr().err


def test_the_device_that_is_asked_for(phone, capsys, monkeypatch):
    phone.behave(devices={"A": "device", "B": "device"})
    assert script.main(["--serial", "Z"]) == 2
    assert "no device Z. Connected: A, B." in capsys.readouterr().err
    assert script.main(["--serial", "B"]) == 0
    monkeypatch.setenv("ANDROID_SERIAL", "A")
    assert script.main([]) == 0
    serials = [ast.literal_eval(line)[:2] for line in (phone.folder / "calls").read_text().splitlines()]
    assert ["-s", "A"] in serials and ["-s", "B"] in serials


@pytest.mark.parametrize(
    "code, said",
    [
        ("INSTALL_FAILED_UPDATE_INCOMPATIBLE", "another signature: `adb uninstall com.larqrep.benchmark`"),
        ("INSTALL_FAILED_NO_MATCHING_ABIS", "neither arm64-v8a nor x86_64"),
        ("INSTALL_FAILED_NEVER_SEEN", "adb says: adb: failed to install"),
    ],
)
def test_failed_installations(phone, capsys, code, said):
    phone.behave(install_fails=code)
    assert script.main([]) == 2
    error = capsys.readouterr().err
    assert f"({code})" in error and said in error


def test_no_app(phone, capsys):
    assert script.main(["--no-install"]) == 2
    assert "not on the phone" in capsys.readouterr().err
    phone.apk.unlink()
    assert script.main([]) == 2
    assert "make -C android_demo" in capsys.readouterr().err
    assert script.main(["--apk", "none.apk"]) == 2
    assert "There is no none.apk" in capsys.readouterr().err


@pytest.mark.parametrize("kind, said", [("java", "the planted fault"), ("native", "Fatal signal 11 (SIGSEGV)")])
def test_crashes_show_the_lines_of_the_log(phone, capsys, kind, said):
    phone.behave(crash=kind, result=None)
    assert script.main([]) == 2
    error = capsys.readouterr().err
    assert "The app has crashed" in error and said in error and "PID: 999" not in error
    assert phone.calls("shell", "am force-stop com.larqrep.benchmark")


@pytest.mark.parametrize(
    "how, said",
    [
        (dict(result=None, gone=True), "ended without a result"),
        (dict(result=None), "There is no result after 0.2 s. Unlock the phone"),
        (dict(hides_file=True, lost_lines=1), "There is no result after 0.2 s"),
        (dict(result={"no": "status"}), "The app's result is damaged"),
        (dict(no_activity=True), "The app does not start: Starting: Intent"),
        (dict(result={"status": "error", "error": "--num_runs should be at least 1."}), "says: --num_runs should be"),
        (dict(result={"status": "cancelled"}), "The app says: cancelled"),
        (dict(result={"status": "ok"}), "The app's JSON is of another version (KeyError('bytes'))"),
        (dict(unplugged_at="logcat"), "The phone is gone (device 'SERIAL' not found): check the cable"),
        (dict(refuses=["/"]), "The phone takes no files"),
    ],
)
def test_no_result_ends_with_2(phone, tmp_path, capsys, how, said):
    phone.behave(**how)
    model = tmp_path / "m.tflite"
    model.write_bytes(b"TFL3")
    seconds = "0.2" if "0.2 s" in said else "60"
    assert script.main([str(model), "--timeout", seconds]) == 2
    assert said in capsys.readouterr().err
    assert [file for file in phone.files() if "m.tflite" in file] == []


def test_wrong_arguments(phone, capsys, monkeypatch, tmp_path):
    assert script.main(["missing.tflite"]) == 2
    assert "There is no file missing.tflite" in capsys.readouterr().err
    assert script.main(["ResNet20", "--reference", "x.json"]) == 2
    assert "bundled networks have their own" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        script.main(["--num_runs", "many"])
    assert ended.value.code == 2
    assert script.main(["--output", str(tmp_path / "no folder" / "x.json")]) == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    assert script.main([]) == 2
    assert "adb is not on PATH. Install it" in capsys.readouterr().err


def test_ctrl_c_cleans_up(phone, tmp_path):
    phone.behave(result=None)
    model = tmp_path / "m.tflite"
    model.write_bytes(b"TFL3")
    command = [sys.executable, script.__file__, str(model), "--apk", str(phone.apk)]
    # On a busy machine each start of the fake adb may take seconds.
    deadline = time.monotonic() + 300
    # Programs that a shell starts in the background, this one perhaps, ignore the signal, and so would the command.
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not (phone.folder / "started").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "The app is not started."
            time.sleep(0.02)
        assert any("m.tflite" in file for file in phone.files())
        os.killpg(process.pid, signal.SIGINT)  # As a terminal does it: adb gets the signal too.
        assert "interrupted" in process.communicate(timeout=300)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert phone.files() == []
    assert phone.calls("shell", "am force-stop com.larqrep.benchmark")
