"""A phone for tests of run_on_device.py, played by a program that is called as adb.

The folder $FAKE_ADB has `phone` (a dictionary: how the phone behaves), `root/` (its files), `log` (its log), `calls`
(each call's arguments) and `started` (the options that the app was started with). Each call is a process of its own, so
what imports much is imported where it is needed.
"""

import os
import sys

FOLDER = os.environ["FAKE_ADB"]
PACKAGE = "com.larqrep.benchmark"
EXTERNAL = f"/sdcard/Android/data/{PACKAGE}/files"
BASE = f"/data/app/~~x==/{PACKAGE}-y==/base.apk"
NOW = "11-29 10:00:00.000"
JAVA_CRASH = [
    ("E", "AndroidRuntime", "FATAL EXCEPTION: main"),
    ("E", "AndroidRuntime", f"Process: {PACKAGE}, PID: 4242"),
    ("E", "AndroidRuntime", "java.lang.IllegalStateException: the planted fault"),
]
NATIVE_CRASH = [("F", "libc", "Fatal signal 11 (SIGSEGV), code 1 in tid 4243 (run), pid 4242 (rqrep.benchmark)")]

with open(f"{FOLDER}/phone") as file:
    PHONE = eval(file.read())  # ast and json import too much.


def fail(message, code=1):
    print(message, file=sys.stderr)
    sys.exit(code)


def real(path):
    return f"{FOLDER}/root{path}"


def copy(source, target):
    with open(source, "rb") as file, open(target, "wb") as copied:
        copied.write(file.read())


def split(line):
    """The words of a line, as a shell finds them."""
    out, into = os.pipe()
    if not os.fork():
        os.dup2(into, 1)
        os.execv("/bin/sh", ["sh", "-c", f"printf '%s\\0' {line}"])
    os.close(into)
    with open(out, encoding="utf-8") as file:
        return file.read().split("\0")[:-1]


def sha256(path):
    import hashlib

    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def refused(path):
    """Whether the shell may not write there."""
    return any(path.startswith(prefix) for prefix in PHONE.get("refuses", []))


def log(*entries):
    with open(f"{FOLDER}/log", "a") as file:
        file.writelines(f"{NOW}  4242  4250 {level} {tag}: {text}\n" for level, tag, text in entries)


def devices():
    print("List of devices attached")
    for serial, state in PHONE["devices"].items():
        print(f"{serial:22} {state} usb:1-1 product:p model:Fake_Phone device:d transport_id:1")
    print()


def install(apk):
    if code := PHONE.get("install_fails"):
        fail(f"adb: failed to install {apk}: Failure [{code}: planted]")
    os.makedirs(os.path.dirname(real(BASE)), exist_ok=True)
    copy(apk, real(BASE))
    print("Performing Streamed Install\nSuccess")


def push(source, target):
    if refused(target):
        fail(f"adb: error: failed to copy '{source}' to '{target}': remote couldn't create file: Permission denied")
    if not os.path.isdir(os.path.dirname(real(target))):
        fail(f"adb: error: failed to copy '{source}' to '{target}': remote No such file or directory")
    copy(source, real(target))
    print(f"{source}: 1 file pushed, 0 skipped.")


def pull(source, target):
    if not os.path.isfile(real(source)):
        fail(f"adb: error: failed to stat remote object '{source}': No such file or directory")
    copy(real(source), target)


def logcat(words):
    if "-c" in words:
        fail("the test forbids to clear the log")
    if PHONE.get("no_log"):
        fail("logcat: Unable to open log device")
    with open(f"{FOLDER}/log") as file:
        lines = file.read().splitlines()
    if "-T" in words:
        since = words[words.index("-T") + 1]
        lines = [line for line in lines if line[: len(since)] >= since]
    if "-t" in words:
        lines = lines[-int(words[words.index("-t") + 1]) :]
    if "-s" in words:
        tags = {word.partition(":")[0] for word in words[words.index("-s") + 1 :]}
        lines = [line for line in lines if line.split()[5].rstrip(":") in tags]
    print("--------- beginning of main")
    print("\n".join(lines))


def start(words):
    """Starts the app, which answers at once, in the way that the test asks for."""
    if PHONE.get("no_activity"):
        print("Starting: Intent { cmp=x }\nError type 3\nError: Activity class {x} does not exist.")
        return
    import json

    assert words[:5] == ["-S", "-W", "-n", f"{PACKAGE}/.BenchmarkActivity", "--es"] and words[5] == "args", words
    assert len(words) == 7, words
    options = dict(word.partition("=")[::2] for word in split(words[6]))
    with open(f"{FOLDER}/started", "w") as file:
        file.write(repr(options))
    print("Starting: Intent { cmp=x }\nStatus: ok\nLaunchState: COLD\nComplete")
    if crash := {"java": JAVA_CRASH, "native": NATIVE_CRASH}.get(PHONE.get("crash")):
        log(*crash)
    if "result" not in PHONE:
        return
    result = dict(PHONE["result"])
    model = options.get("--model", "")
    if model.startswith("/"):
        compared = real(model.removesuffix(".tflite") + ".reference.json")
        result |= {"file": model, "sha256": sha256(real(model)), "compared": os.path.isfile(compared)}
    text, name = json.dumps(result, ensure_ascii=False), options["--output"]
    if not PHONE.get("hides_file"):
        os.makedirs(real(EXTERNAL), exist_ok=True)
        with open(real(f"{EXTERNAL}/{name}"), "w") as file:
            file.write(text)
    parts = [text[i : i + 100] for i in range(0, len(text), 100)]
    parts = parts[: len(parts) - PHONE.get("lost_lines", 0)]
    count = len(parts) + PHONE.get("lost_lines", 0)
    log(*(("I", "larq-rep", f"{name} {i}/{count} {part}") for i, part in enumerate(parts, 1)))


def shell(command):
    words = split(command)
    if words[:2] == ["pm", "path"]:
        if not os.path.isfile(real(BASE)):
            sys.exit(1)
        print(f"package:{BASE}")
    elif words[0] == "sha256sum":
        print(f"{sha256(real(words[1]))}  {words[1]}")
    elif words[:2] == ["mkdir", "-p"]:
        if refused(words[2]):
            fail(f"mkdir: '{words[2]}': Permission denied")
        os.makedirs(real(words[2]), exist_ok=True)
    elif words[:2] == ["rm", "-rf"]:
        for folder, _, names in os.walk(real(words[2]), topdown=False):
            for name in names:
                os.remove(f"{folder}/{name}")
            os.rmdir(folder)
    elif words[:2] == ["rm", "-f"]:
        if os.path.exists(real(words[2])):
            os.remove(real(words[2]))
    elif words[:2] == ["am", "start"]:
        start(words[2:])
    elif words[0] == "pidof":
        sys.exit(1 if PHONE.get("gone") else 0)
    elif words[0] not in ("chmod", "am"):
        fail(f"{words[0]}: inaccessible or not found", 127)


def main(words):
    with open(f"{FOLDER}/calls", "a") as file:
        print(words, file=file)
    if words[0] == "-s":
        assert words[1] in PHONE["devices"]
        words = words[2:]
    if words[0] == PHONE.get("unplugged_at"):
        fail("error: device 'SERIAL' not found")
    commands = {"install": lambda _, apk: install(apk), "push": push, "pull": pull, "shell": shell}
    if words[0] == "devices":
        devices()
    elif words[0] == "logcat":
        logcat(words[1:])
    else:
        commands[words[0]](*words[1:])


main(sys.argv[1:])
