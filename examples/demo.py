"""Turns networks into verified, bitpacked files in a few minutes; run by `make demo`.

Trains ResNet-20 and Rep-ResNet-20 on the handwritten digits of scikit-learn with `lqr train`, converts them, proves
that the files compute what the networks compute, and quantizes what is real in them to int8. Converts and proves
Rep-ReActNet-A at its full size (untrained, with batch normalisations set on photographs), and measures all of them. The
results stay in build/demo.

Exit code 0 if all targets are met, 1 if one is missed, 2 if build/demo is not the demo's own.
"""

import os
import queue
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from larq_rep_cli import runs, terminal

OUT = Path(__file__).resolve().parents[1] / "build" / "demo"
MARK = OUT / ".made-by-larq-rep-demo"

SIZE, WIDTH = 16, 16  # maps of 16, 8 and 4 pixels: LCE needs at least 3 for a 3x3 filter
EPOCHS = 30
SEED = 1
TRAINING = [
    *("--recipe", "recu", "--data", "digits", "--input-size", str(SIZE), "--seed", str(SEED)),
    *("--set", "method=recu", "--set", f"width={WIDTH}", "--set", f"epochs={EPOCHS}", "--set", "batch_size=32"),
]
TARGET = 0.97
PROOF_IMAGES = 4
CALIBRATION_IMAGES = 100
MODES = ("default", "indirect")
RUNS = 10


class Demo:
    """The steps, with one bar over all of them and one within each."""

    def __init__(self, bars: Progress, console: Console, steps: int):
        self.bars, self.console = bars, console
        self.overall = bars.add_task("demo", total=steps)
        self.missed: list[str] = []
        self.rows: dict[str, dict[str, str]] = {}
        self.contents: dict[str, bytes] = {}

    @contextmanager
    def step(self, description: str, total: int | None = None) -> Iterator[Callable[[int, str], None]]:
        """Yields a function that takes how much of the step is done, and a text to show."""
        task = self.bars.add_task(description, total=total)
        start = time.perf_counter()

        def advance(completed: int, said: str = "") -> None:
            self.bars.update(task, completed=completed, description=f"{description} {said}".strip())

        yield advance
        self.bars.remove_task(task)
        self.bars.advance(self.overall)
        self.console.print(f"{time.perf_counter() - start:6.1f} s  {description}")

    def train(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Trains the networks side by side with `lqr train`, each on one core; returns them by name.

        Small convolutions gain little from a second core.
        """
        environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        said = dict.fromkeys(names, "...")
        done = dict.fromkeys(names, 0)
        last = dict.fromkeys(names, "")
        lines: queue.Queue = queue.Queue()

        def read(name: str, process: subprocess.Popen) -> None:
            for line in process.stderr or ():
                lines.put((name, line))
            lines.put((name, None))

        with self.step("train", EPOCHS * len(names)) as advance:
            processes = {}
            for name in names:
                command = [sys.executable, "-m", "larq_rep_cli.lqr", "train", name, "--out", str(OUT / name), *TRAINING]
                processes[name] = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
                threading.Thread(target=read, args=(name, processes[name]), daemon=True).start()
            running = set(names)
            while running:
                name, line = lines.get()
                if line is None:
                    running.remove(name)
                elif match := re.match(r"epoch (\d+) of .* test ([\d.]+%)", line):
                    done[name], said[name] = int(match[1]), match[2]
                    advance(sum(done.values()), ", ".join(f"{name} {text}" for name, text in said.items()))
                elif line.strip():
                    last[name] = line.strip()
            for name, process in processes.items():
                if process.wait():
                    raise SystemExit(f"lqr train {name} ended with exit code {process.returncode}. {last[name]}")
        return {name: runs.load(OUT / name, "last") for name in names}

    def convert(self, name: str, model) -> None:
        from larq_rep.converters import convert
        from larq_rep.cost import count

        with self.step(f"{name}: convert"):
            content, report = convert(model)
            (OUT / f"{name}.tflite").write_bytes(content)
        self.contents[name] = content
        cost = count(model)
        self.rows[name] = {
            "parameters": f"{cost.trainable_params:,}",
            "OPs": f"{float(cost.ops):,.0f}",
            "file, bytes": f"{report.size:,}",
            "bitpacked": f"{report.bitpacked}/{report.binary}",
        }
        if report.bitpacked != report.binary:
            self.missed.append(f"{name}: {report.bitpacked} of {report.binary} convolutions are bitpacked")

    def verify(self, name: str, model, images) -> None:
        from larq_rep.converters import verify

        with self.step(f"{name}: verify on {len(images)} images", len(images)) as advance:

            def track(indices: Iterable[int]) -> Iterator[int]:
                for index in indices:
                    yield index
                    advance(index + 1, "")

            result = verify(model, self.contents[name], images, progress=track)
        self.rows[name]["verified"] = " + ".join(result.engines) if result.ok else "NO"
        if not result.ok:
            self.missed.append(f"{name}: the file differs from the model: {result.differences[0]}")

    def answers(self, name: str, model, images) -> tuple[Any, Any]:
        """The classes that Keras and LCE find; LCE gets each image in its own batch."""
        from larq_rep.converters import lce

        with self.step(f"{name}: compare the answers on {len(images)} images"):
            keras = model.predict(images, verbose=0).argmax(axis=1)
            tflite = lce.interpreter(self.contents[name]).predict(images).argmax(axis=1)
        self.rows[name]["disagree"] = f"{(keras != tflite).sum()}/{len(images)}"
        return keras, tflite

    def accuracy(self, name: str, answers: tuple[Any, Any], labels) -> None:
        for engine, found in zip(("Keras", "TFLite"), answers, strict=True):
            accuracy = (found == labels).mean()
            self.rows[name][f"accuracy {engine}"] = f"{accuracy:.2%}"
            if accuracy < TARGET:
                self.missed.append(f"{name}: accuracy {accuracy:.2%} in {engine}, expected at least {TARGET:.0%}")

    def quantize(self, name: str, model, training_images, images, labels) -> None:
        """The accuracy on held-out images if what is real is int8, its ranges measured on images trained on."""
        from larq_rep.converters import convert, lce

        with self.step(f"{name}: int8, ranges on {len(training_images)} images"):
            content, _ = convert(model, int8=training_images)
            (OUT / f"{name}_int8.tflite").write_bytes(content)
            found = lce.interpreter(content).predict(images).argmax(axis=1)
        self.rows[name]["int8, bytes"] = f"{len(content):,}"
        self.rows[name]["accuracy int8"] = f"{(accuracy := (found == labels).mean()):.2%}"
        if accuracy < TARGET:
            self.missed.append(f"{name}: accuracy {accuracy:.2%} in int8, expected at least {TARGET:.0%}")

    def benchmark(self) -> None:
        from larq_rep.converters.latency import benchmark

        with self.step(f"benchmark {' and '.join(MODES)} modes", RUNS + 2) as advance:
            results = benchmark(
                self.contents,
                modes=MODES,
                warmup_runs=2,
                num_runs=RUNS,
                progress=lambda done, total: advance(done, ""),
            )
        for result in results:
            time_or_reason = result.reason if result.median_ms is None else f"{result.median_ms:.2f}"
            self.rows[result.file][f"ms {result.mode}"] = time_or_reason

    def table(self) -> Table:
        table = Table(
            title="360 held-out digits and 4 crops of photographs; latency: median on one thread of this machine"
        )
        columns = list(dict.fromkeys(column for row in self.rows.values() for column in row))
        table.add_column("network")
        for column in columns:
            table.add_column(column, justify="right")
        for name, row in self.rows.items():
            table.add_row(name, *(row.get(column, "–") for column in columns))
        return table


def draw_digits(path: Path, images, labels, answers: dict[str, tuple[Any, Any]]) -> None:
    """Draws the first digits with the answers of Keras and the file to each; wrong answers are red."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.4 * 3), layout="constrained")
    for i, axes in enumerate(figure.subplots(3, 8).flat):
        axes.imshow(images[i, :, :, 0], cmap="gray_r")
        axes.axis("off")
        lines = [f"{name}: {keras[i]} / {tflite[i]}" for name, (keras, tflite) in answers.items()]
        right = all(found[i] == labels[i] for pair in answers.values() for found in pair)
        axes.set_title("\n".join([f"a {labels[i]}", *lines]), fontsize=8, color="black" if right else "red")
    figure.suptitle("The first held-out digits, answers of Keras / TFLite")
    figure.savefig(path, dpi=120)


def randomize_signs(model) -> None:
    """Gives the weights random signs: ReActNet's initial ones are positive, so a file with mixed-up bits would pass."""
    import larq as lq
    import numpy as np

    generator = np.random.default_rng(SEED)
    for layer in model.layers:
        if isinstance(layer, lq.layers.QuantConv2D):
            kernel = layer.kernel
            kernel.assign(kernel * generator.choice(np.float32([-1, 1]), kernel.shape))


def main() -> int:
    console = terminal.console()
    if OUT.is_symlink() or (OUT.exists() and not MARK.is_file()):
        console.print(f"{OUT} was not made by this demo, so it is not removed: move it away.")
        return 2
    if OUT.exists():
        shutil.rmtree(OUT)
    OUT.mkdir(parents=True)
    MARK.touch()
    start = time.perf_counter()

    with terminal.progress() as bars:
        demo = Demo(bars, console, steps=15)
        with demo.step("import TensorFlow"):
            terminal.quiet_tensorflow()
            from larq_rep import plots, training, zoo
            from larq_rep.data import digits, sample_photographs

            images, labels = digits("test", SIZE)
            training_images = digits("train", SIZE)[0][:CALIBRATION_IMAGES]

        answers = {}
        for name, model in demo.train(("ResNet20", "RepResNet20")).items():
            demo.convert(name, model)
            demo.verify(name, model, images[:PROOF_IMAGES])
            answers[name] = demo.answers(name, model, images)
            demo.accuracy(name, answers[name], labels)
            demo.quantize(name, model, training_images, images, labels)
        histories = {name: training.read_metrics(OUT / name) for name in answers}
        plots.write(plots.history(histories), OUT / "training.png")
        draw_digits(OUT / "digits.png", images, labels, answers)

        name = "RepReActNetA"
        with demo.step(f"{name}: build, and set its statistics on photographs"):
            import tensorflow as tf

            tf.keras.utils.set_random_seed(SEED)
            model = zoo.get_model(name)
            randomize_signs(model)
            photographs = sample_photographs(224)
            training.calibrate_batch_norm(model, photographs)
        demo.convert(name, model)
        demo.verify(name, model, photographs[:2])
        demo.answers(name, model, photographs[:4])
        demo.benchmark()

    console.print(demo.table())
    files = ", ".join(sorted(path.name for path in OUT.iterdir() if path != MARK))
    console.print(f"{time.perf_counter() - start:.0f} s. In {OUT}: {files}")
    for miss in demo.missed:
        console.print(f"MISSED: {miss}")
    return 1 if demo.missed else 0


if __name__ == "__main__":
    sys.exit(main())
