"""`lce import` and `lce evaluate`, on checkpoints in the layout of PyTorch."""

import json

import authors
import numpy as np
import pytest
import tensorflow as tf
import torch_files
from commands import refused, run
from mxnet_files import params
from PIL import Image

import larq_rep
from larq_rep import zoo


def write(path, name, **changes):
    """What the training script of a network saves."""
    arrays = authors.NETWORKS[name].state_dict(seed=2) | changes
    tensors = {key: torch_files.tensor(array, str(i)) for i, (key, array) in enumerate(arrays.items())}
    best = torch_files.tensor(np.float32(70.5), "best")
    content = {"epoch": 255, "state_dict": torch_files.state_dict(tensors), "best_top1_acc": best, "optimizer": {}}
    path.write_bytes(torch_files.zip_file(content))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def checkpoint(folder):
    return write(folder / "model_best.pth.tar", "recu_resnet20")


@pytest.fixture(scope="module")
def imported(folder, checkpoint):
    """The imported network and what the command printed."""
    result = run("import", checkpoint, "-o", folder / "recu.h5", "--report")
    assert result.exit_code == 0, result.stderr
    return folder / "recu.h5", result


@pytest.fixture(scope="module")
def class_folders(folder):
    """Six pictures of noise, each in the folder of the class that the network of the authors gives it."""
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    network = authors.NETWORKS["recu_resnet20"]
    logits = network.forward(network.state_dict(seed=2), ((images / 255 - mean) / std).transpose(0, 3, 1, 2))
    for number, (image, label) in enumerate(zip(images, logits.argmax(axis=1), strict=True)):
        place = folder / "images" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return folder / "images"


def forward(images):
    network = authors.NETWORKS["recu_resnet20"]
    return network.forward(network.state_dict(seed=2), images)


def test_import_recognises_the_network(imported):
    path, result = imported
    assert f"{path}: ResNet20(method='recu'), 119 weights, 38 keys unused" in result.stdout
    images = authors.images("recu_resnet20", batch=2)
    model = tf.keras.models.load_model(path, compile=False)
    found = model.predict(images.transpose(0, 2, 3, 1).astype(np.float32), verbose=0)
    expected = forward(images)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_report_and_json(folder, checkpoint, imported):
    """Also that the option `--reader` of 0.1 is taken and has no effect."""
    printed = imported[1].stdout
    assert "layer1.0.conv1.alpha" in printed and "OIHW to HWIO, mirrored" in printed
    assert "unused: a counter" in printed
    (folder / "report.keras").touch()
    result = run("import", checkpoint, "-o", folder / "report.keras", "--force", "--json", "--reader", "torch")
    assert result.exit_code == 0 and "goes with 0.3" in result.stderr
    assert "--reader" not in run("import", "--help").stdout
    result = json.loads(result.stdout)
    assert result["network"] == "ResNet20" and result["arguments"] == {"method": "recu"}
    assert len(result["rows"]) == 119 and len(result["unused"]) == 38
    row = next(row for row in result["rows"] if row["weight"] == "conv1/kernel")
    assert row["keys"] == ["conv1.weight"] and row["found"] == [[16, 3, 3, 3]] and row["shape"] == [3, 3, 3, 16]


def test_options_of_import(folder):
    write(folder / "rbnn.pth", "rbnn_resnet20")
    message = refused("import", folder / "rbnn.pth", "-o", folder / "rbnn.h5")
    assert "those of 2 forms of ResNet20" in message
    assert "--set method=rbnn " in message and "--set method=rbnn_bireal " in message
    assert not (folder / "rbnn.h5").exists()
    wanted = ("import", folder / "rbnn.pth", "--set", "method=rbnn", "-o", folder / "rbnn.h5")
    (folder / "rbnn.h5").touch()
    assert "exists already" in refused(*wanted)
    assert (folder / "rbnn.h5").stat().st_size == 0
    assert "ResNet20(method='rbnn')" in run(*wanted, "--force", "--input-size", "64").stdout
    assert tf.keras.models.load_model(folder / "rbnn.h5", compile=False).input_shape == (None, 64, 64, 3)


def test_first_step(folder):
    """The network of the first phase has real weights, and is no binary network."""
    path = write(folder / "step1.pth.tar", "react_resnet18_cifar100")
    message = refused("import", path, "-o", folder / "step1.h5")
    for options in ("--step 1 ", "--step 2 --set shortcut=real ", "--step 2 --set shortcut=binary "):
        assert f"  {options}" in message
    assert not (folder / "step1.h5").exists()
    assert run("import", path, "--step", "1", "-o", folder / "step1.h5").exit_code == 0
    model = tf.keras.models.load_model(folder / "step1.h5", compile=False)
    assert not any(getattr(layer, "kernel_quantizer", None) for layer in model.layers)
    real = write(folder / "real.pth", "resnet20")
    wanted = ("--network", "ResNet20", "--set", "method=real", "--step", "1", "-o", folder / "x.h5")
    assert "ResNet20 is trained in one phase. There is no step 1" in refused("import", real, *wanted)


def test_parameters_of_bmxnet(folder):
    """Their names say nothing of the network, and it pads with -1."""
    path = folder / "melius.params"
    path.write_bytes(params(authors.NETWORKS["meliusnet22"].state_dict()))
    assert "those of no network here" in refused("import", path, "-o", folder / "melius.h5")
    wanted = ("import", path, "--network", "MeliusNet22", "--input-size", "32", "-o", folder / "melius.h5")
    assert "Build it with padding='bmxnet'" in refused(*wanted)
    result = run(*wanted, "--set", "padding=bmxnet")
    assert "MeliusNet22(padding='bmxnet')" in result.stdout


def test_what_import_refuses(folder, checkpoint):
    output = folder / "bad.h5"
    message = refused("import", checkpoint, "--network", "ResNet18", "-o", output)
    lines = message.splitlines()
    assert len(lines) <= 25 and "Its keys are those of ResNet20." in lines[1]
    assert "left over: " in message and "missing: " in message
    assert "Did you mean ResNet20" in refused("import", checkpoint, "--network", "ResNet2", "-o", output)
    assert "no such file" in refused("import", folder / "none.pth", "-o", output)
    assert "expected the name of a file in .h5 or .keras" in refused("import", checkpoint, "-o", folder / "x.tflite")
    assert "'widht'" in refused("import", checkpoint, "--set", "widht=3", "-o", output)
    (folder / "page.pth").write_text("<!doctype html>")
    for key, value in (("dataset", "mnist"), ("dataset", "[1]"), ("weights", "x"), ("input_shape", "(8,8,3)")):
        refused("import", checkpoint, "--network", "ResNet18", "--set", f"{key}={value}", "-o", output)
    assert "expected the name of a file" in refused("import", checkpoint, "-o", folder / "x.weights.h5")
    assert "it is a web page" in refused("import", folder / "page.pth", "-o", output)
    nan = write(folder / "nan.pth", "recu_resnet20", **{"linear.bias": np.full(10, np.nan, np.float32)})
    assert "not finite: linear.bias" in refused("import", nan, "-o", output)
    assert not output.exists() and not list(folder.glob(".*"))


def test_options_for_keys(folder):
    """A network with a prefix beside its teacher, averaged weights, and what is said of them."""
    arrays = authors.NETWORKS["irnet_resnet20"].state_dict(seed=2)
    names = {f"{part}.{key.removeprefix('module.')}": key for part in ("student", "teacher") for key in arrays}
    tensors = {name: torch_files.tensor(arrays[key], str(i)) for i, (name, key) in enumerate(names.items())}
    path, output = folder / "two.pth", folder / "two.h5"
    path.write_bytes(torch_files.zip_file({"weights": tensors, "ema": torch_files.state_dict(tensors)}))
    wanted, method = ("import", path, "-o", output), ("--set", "method=irnet")
    assert "--ignore 'teacher.*'" in refused(*wanted)
    assert "nothing under 'eam'" in refused(*wanted, "--key", "eam")
    assert "no key for ignore='tacher.*'" in refused(*wanted, "--ignore", "tacher.*")
    assert "Mend the pattern" in refused(*wanted, "--ignore", "teacher.*", "--ignore", "conv1.weight", *method)
    assert not output.exists()
    result = run(*wanted, "--key", "ema", "--ignore", "teacher.*", "--json", *method)
    found = json.loads(result.stdout)
    assert (
        found["network"] == "ResNet20" and found["notes"][-1] == "All keys begin with 'student.', which was left out."
    )
    assert found["unused"]["teacher.conv1.weight"] == "ignored by 'teacher.*'"


@pytest.mark.parametrize("file", ["https://example.org/a.pth", "out", "out/data.pkl", "net.onnx", "net.tflite"])
def test_other_files_are_refused_by_name(folder, file):
    (folder / "out").mkdir(exist_ok=True)
    (folder / "out" / "data.pkl").write_bytes(torch_files.dump({"w": torch_files.tensor(np.ones(2), "0")})[0])
    (folder / "net.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    (folder / "net.tflite").write_bytes(b"\x1c\0\0\0TFL3")
    texts = {
        "out": "unpacked folder",
        "data.pkl": "data.pkl of an",
        "net.onnx": "ONNX graph",
        "net.tflite": ".tflite file",
    }
    name = file if "://" in file else folder / file
    message = refused("import", name, "-o", folder / "other.h5")
    assert f"{name}: it is" in message and texts.get(file.rpartition("/")[2], "Download it") in message


def test_imported_networks_are_converted_and_evaluated(folder, imported, class_folders):
    """Also to a file that takes mirrored images."""
    path, _ = imported
    assert run("convert", path, "-o", folder / "recu.tflite").exit_code == 0
    result = run("convert", path, "--mirrored-input", "-o", folder / "mirrored.tflite")
    assert "takes mirrored images" in result.stderr
    for name in ("recu.tflite", "mirrored.tflite"):
        assert run("verify", path, folder / name, "--random", 1).exit_code == 0
    message = refused("verify", "ResNet20", folder / "mirrored.tflite", "--set", "method=recu", "--random", 1)
    assert "takes mirrored images, but the model has no Mirror layer" in message
    about = json.loads(run("inspect", folder / "mirrored.tflite", "--json").stdout)
    said = about["metadata"]
    assert (said["version"], said["network"]) == (larq_rep.__version__, "ResNet20")
    assert said["mirrored_input"] is said["input"]["mirrored"] is True
    assert "STRIDED_SLICE" not in about["operators"]
    about = json.loads(run("inspect", folder / "recu.tflite", "--json").stdout)
    assert about["operators"]["STRIDED_SLICE"] == 1

    # A Keras file says by its layers which form it is.
    result = json.loads(run("evaluate", path, "--images", class_folders, "--json").stdout)
    assert (result["images"], result["top1"], result["top5"]) == (6, 1.0, 1.0)
    for source in (folder / "recu.tflite", folder / "mirrored.tflite"):
        options = ("--images", class_folders, "--set", "method=recu")
        result = json.loads(run("evaluate", source, *options, "--json").stdout)
        assert (result["images"], result["top1"], result["top5"]) == (6, 1.0, 1.0)
    result = run("evaluate", folder / "mirrored.tflite", *options, "--limit", 3, "--batch-size", 2)
    assert result.stdout.endswith("top-1 100.00%, top-5 100.00% of 3 images.\n")


def test_top5(folder, imported, class_folders):
    """Pictures in the folders of their second and of their last class."""
    from larq_rep.zoo import preprocess_input

    path, _ = imported
    pictures = [np.asarray(Image.open(file)) for file in sorted(class_folders.glob("*/*.png"))]
    order = np.argsort(-forward(preprocess_input("ResNet20", pictures, method="recu").transpose(0, 3, 1, 2)))
    for number, (picture, ranked) in enumerate(zip(pictures, order, strict=True)):
        place = folder / "ranked" / str(ranked[1] if number < 4 else ranked[-1])
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{number}.png")
    options = ("--images", folder / "ranked", "--set", "method=recu", "--json")
    result = json.loads(run("evaluate", path, *options).stdout)
    assert result["top1"] == 0 and result["top5"] == pytest.approx(4 / 6)


def test_evaluate_takes_networks_of_the_zoo(checkpoint, class_folders):
    result = run(
        *("evaluate", "ResNet20", "--set", "method=recu", "--weights", checkpoint, "--images", class_folders, "--json")
    )
    assert json.loads(result.stdout)["top1"] == 1.0


def test_what_evaluate_refuses(folder, class_folders):
    path = folder / "small.h5"
    zoo.VGGSmall(method="recu", width=2).save(path)
    assert "is not a folder" in refused("evaluate", path, "--images", folder / "none")
    (folder / "empty").mkdir()
    assert "no folders with images" in refused("evaluate", path, "--images", folder / "empty")
    for name in ("cat", "dog"):
        (folder / "two" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / "two" / name / "1.png")
    assert "has 2 classes, but" in refused("evaluate", path, "--images", folder / "two", "--set", "method=recu")
    for arguments, expected in (
        (("--set", "metod=recu"), "has no argument 'metod'"),
        (("--set", "method=reku"), "no published form"),
        (("--beta", "2"), "leave out --weights, --beta"),
    ):
        assert expected in refused("evaluate", path, "--images", class_folders, *arguments)
    for name in ("3", "03"):
        (folder / "twice" / name).mkdir(parents=True)
    assert "same number" in refused("evaluate", path, "--images", folder / "twice")


def test_mirrored_input_is_for_imported_networks(folder):
    network = ("VGGSmall", "--set", "width=4")
    message = refused("convert", *network, "--mirrored-input", "-o", folder / "x.tflite")
    assert "does not begin with a Mirror layer" in message


def test_weights_option_takes_checkpoints(folder, checkpoint):
    output = folder / "direct.tflite"
    assert run("convert", "ResNet20", "--set", "method=recu", "--weights", checkpoint, "-o", output).exit_code == 0
    file = write(folder / "fracbnn.pth", "fracbnn_1bit")
    command = ("convert", "ResNet20", "--set", "method=fracbnn", "--weights", file, "-o", folder / "fracbnn.tflite")
    assert "Add one of these to lce import:" in refused(*command)


@pytest.mark.slow
def test_the_example_of_the_readme(folder):
    path = write(folder / "model_best_rep.pth.tar", "rep_adambnn")
    result = run("import", path, "--step", 2, "-o", folder / "rep_reactnet.h5")
    assert "RepReActNetA(beta=2), 266 weights, 32 keys unused" in result.stdout
    result = run("convert", folder / "rep_reactnet.h5", "-o", folder / "rep.tflite")
    assert "31 of 31 binary convolutions bitpacked" in result.stdout
    model, _ = zoo.import_checkpoint(path, step=2)
    images = authors.images("rep_adambnn", batch=1)
    expected = authors.NETWORKS["rep_adambnn"].forward(authors.NETWORKS["rep_adambnn"].state_dict(seed=2), images)
    found = model.predict(images.transpose(0, 2, 3, 1).astype(np.float32), verbose=0)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
