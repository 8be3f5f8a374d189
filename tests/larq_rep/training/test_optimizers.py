import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from support import first_quick

from larq_rep.layers import BiasedPReLU, RPReLU
from larq_rep.quantizers import LeakyRSign, ReCUSign
from larq_rep.training.optimizers import SGD, Adam, RAdam, decayed_weights
from larq_rep.zoo import ReActNet18, ReActNetA, RepReActNetA, ResNet18

RATES = [0.1, 0.1, 0.02, 0.3, 0.001, 0.05]


def _torch_sgd(w, gradients, rates, momentum, nesterov, l2):
    """The update of torch.optim.SGD as its documentation states it, dampening 0."""
    w, b = w.astype(np.float64), None
    for g, rate in zip(gradients, rates, strict=True):
        g = g + l2 * w
        if momentum:
            b = g if b is None else momentum * b + g
            g = g + momentum * b if nesterov else b
        w = w - rate * g
    return w


def _torch_adam(w, gradients, rates, l2, beta_1, beta_2, epsilon=1e-8):
    """The update of torch.optim.Adam as its documentation states it."""
    w, m, v = w.astype(np.float64), 0.0, 0.0
    for step, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = g + l2 * w
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        w = w - rate * (m / (1 - beta_1**step)) / (np.sqrt(v / (1 - beta_2**step)) + epsilon)
    return w


def _torch_radam(w, gradients, rates, l2, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """The update of torch.optim.RAdam as its documentation states it."""
    w, m, v = w.astype(np.float64), 0.0, 0.0
    largest = 2 / (1 - beta_2) - 1
    rectified = []
    for step, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        g = g + l2 * w
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        rho = largest - 2 * step * beta_2**step / (1 - beta_2**step)
        rectified.append(rho > 5)
        factor = 1.0
        if rho > 5:
            r = ((rho - 4) * (rho - 2) * largest / ((largest - 4) * (largest - 2) * rho)) ** 0.5
            factor = r * np.sqrt(1 - beta_2**step) / (np.sqrt(v) + epsilon)
        w = w - rate * m / (1 - beta_1**step) * factor
    assert rectified == [False] * 5 + [True] * (len(rates) - 5)
    return w


def _run(optimizer, variables, gradients, rates=RATES):
    @tf.function
    def step(*g):
        optimizer.apply_gradients(zip(g, variables, strict=True))

    for rate, row in zip(rates, zip(*gradients, strict=True), strict=True):
        optimizer.learning_rate = rate
        step(*(tf.constant(g) for g in row))


def _problem(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=shape) for shape in ((3, 2), (4,), (3, 2))]
    gradients = [[scale * rng.normal(size=w.shape) for _ in RATES] for w in weights]
    return weights, gradients, [tf.Variable(w, name="w") for w in weights]


@pytest.mark.parametrize("momentum, nesterov", [(0.9, False), (0.9, True), (0.0, False)])
def test_sgd_is_that_of_pytorch(momentum, nesterov):
    weights, gradients, variables = _problem()
    # The rates change: a momentum that contains them would give other weights.
    _run(SGD(0.1, momentum, nesterov, l2=0.2, decayed=[variables[0], variables[1]]), variables, gradients)
    for w, g, variable, l2 in zip(weights, gradients, variables, (0.2, 0.2, 0.0), strict=True):
        np.testing.assert_allclose(variable, _torch_sgd(w, g, RATES, momentum, nesterov, l2), rtol=1e-13)


# Gradients as small as epsilon tell where epsilon is added.
@pytest.mark.parametrize("betas", [(0.875, 1 - 2**-10), (0.9, 0.999)])
@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_adam_is_that_of_pytorch(scale, betas):
    weights, gradients, variables = _problem(1, scale)
    _run(Adam(1e-3, *betas, l2=0.2, decayed=[variables[2]]), variables, gradients)
    for w, g, variable, l2 in zip(weights, gradients, variables, (0.0, 0.0, 0.2), strict=True):
        np.testing.assert_allclose(variable, _torch_adam(w, g, RATES, l2, *betas), rtol=1e-12, atol=1e-13)


def test_adam_keeps_the_largest_second_moment():
    """amsgrad: gradients that shrink, against the formula."""
    w, m, v, largest = np.array([1.0, -2.0]), 0.0, 0.0, 0.0
    variable, optimizer = tf.Variable(w), Adam(0.1, amsgrad=True)
    for step, g in enumerate(np.array([[3.0, 1.0], [0.1, 0.2], [0.0, 0.3]]), start=1):
        optimizer.apply_gradients([(tf.constant(g), variable)])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        largest = np.maximum(largest, v)
        w = w - 0.1 * (m / (1 - 0.9**step)) / (np.sqrt(largest / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(variable, w, rtol=1e-12)


def test_first_steps_of_adam_in_float32():
    """1 - 0.999 in float32 is off by 1e-5, and with it the first steps."""
    for g in (1.0, 1e-3):
        variable, optimizer = tf.Variable(0.0), Adam(0.1)
        optimizer.apply_gradients([(tf.constant(g), variable)])
        assert float(variable) == pytest.approx(-0.1 / (1 + 1e-8 / g), rel=5e-7)


@pytest.mark.parametrize(
    "make, step",
    [(SGD, lambda g: g), (Adam, lambda g: g / (g + 1e-8)), (RAdam, lambda g: g)],
    ids=["sgd", "adam", "radam"],
)
def test_numbers_are_those_of_python(make, step):
    """Neither 0.1 nor 0.3 is a number of float32, in which Keras' variable keeps it."""
    for changed in (False, True):
        variable, optimizer = tf.Variable(1.0, dtype=tf.float64), make(0.2 if changed else 0.1, l2=0.3)
        if changed:
            optimizer.learning_rate, optimizer.l2 = 0.1, 0.7
        l2 = 0.7 if changed else 0.3
        optimizer.apply_gradients([(tf.constant(2.0, tf.float64), variable)])
        np.testing.assert_allclose(variable, 1 - 0.1 * step(2 + l2), rtol=1e-14)
        config = optimizer.get_config()
        assert (config["learning_rate"], config["l2"]) == (0.1, l2)


@pytest.mark.parametrize("number", [tf.constant(0.25), np.float32(0.25), np.float64(0.25), np.array(0.25), 1])
def test_numbers_may_be_tensors(number):
    for optimizer in (SGD(number, l2=number), SGD()):
        optimizer.learning_rate = optimizer.l2 = number
        config = optimizer.get_config()
        assert config["learning_rate"] == config["l2"] == float(number)


def test_numbers_of_a_checkpoint_count(tmp_path):
    """In a checkpoint, also one of larq-rep 0.1.0, they are of float32."""
    optimizer, other = SGD(0.1, l2=0.3), SGD(0.2, l2=0.4)
    variables = tf.Variable(1.0), tf.Variable(1.0)
    for each, variable in zip((optimizer, other), variables, strict=True):
        each.build([variable])
    tf.train.Checkpoint(optimizer=optimizer).save(str(tmp_path / "c"))
    tf.train.Checkpoint(optimizer=other).restore(str(tmp_path / "c-1")).assert_existing_objects_matched()
    assert other.get_config()["learning_rate"] == float(np.float32(0.1))
    assert other.get_config()["l2"] == float(np.float32(0.3))
    other.learning_rate.assign(0.5)  # as Keras' callbacks do
    assert other.get_config()["learning_rate"] == 0.5
    names = [name for name, _ in tf.train.list_variables(str(tmp_path / "c-1"))]
    assert not [name for name in names if "exact" in name]


def test_radam_is_that_of_pytorch():
    """Rectified from the sixth step on."""
    weights, gradients, variables = _problem(2)
    rates = [*RATES, 0.5, 0.2]
    gradients = [[*g, g[0] + 1, g[1] - 2] for g in gradients]
    _run(RAdam(l2=0.2, decayed=[variables[2]]), variables, gradients, rates)
    for w, g, variable, l2 in zip(weights, gradients, variables, (0.0, 0.0, 0.2), strict=True):
        np.testing.assert_allclose(variable, _torch_radam(w, g, rates, l2), rtol=1e-12)


@pytest.mark.parametrize("decayed, expected", [(None, [1, 1, 1]), ([], [0, 0, 0]), ([2, 0], [1, 0, 1])])
def test_which_weights_decay(decayed, expected):
    _, _, variables = _problem()
    before = [v.numpy() for v in variables]
    optimizer = SGD(0.5, momentum=0.0, l2=0.2, decayed=decayed)
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in variables])
    for old, variable, decays in zip(before, variables, expected, strict=True):
        np.testing.assert_allclose(variable, old * (0.9 if decays else 1.0), rtol=1e-6)


def test_the_penalty_can_change_in_compiled_training():
    weights, _, variables = _problem()
    optimizer = SGD(0.5, momentum=0.0, l2=0.2)

    @tf.function
    def step():
        optimizer.apply_gradients([(tf.zeros_like(v), v) for v in variables])

    step()
    optimizer.l2 = 0.0
    step()
    optimizer.l2 = 1.0
    step()
    for w, variable in zip(weights, variables, strict=True):
        np.testing.assert_allclose(variable, w * 0.9 * 0.5, rtol=1e-6)


def _model():
    tf.keras.utils.set_random_seed(3)
    keras = tf.keras.layers
    return tf.keras.Sequential(
        [
            keras.Dense(4, input_shape=(3,)),
            keras.Reshape((1, 1, 4)),
            RPReLU(),
            keras.Flatten(),
            keras.Dense(2),
        ]
    )


def _data(samples=8):
    rng = np.random.default_rng(5)
    return rng.normal(size=(samples, 3)).astype(np.float32), rng.normal(size=(samples, 2)).astype(np.float32)


@pytest.mark.parametrize("make", [SGD, Adam, RAdam])
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_saved_model_goes_on_as_before(make, suffix, tmp_path):
    """Names differ in a loaded model; the momenta and what decays do not."""
    x, y = _data()
    model = _model()
    model.compile(make(0.01, l2=0.5, decayed=[model.layers[0].kernel, model.layers[2].shift_in]), "mse")
    model.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    path = str(tmp_path / f"model.{suffix}")
    model.save(path)
    loaded = tf.keras.models.load_model(path)
    assert type(loaded.optimizer) is make
    assert loaded.optimizer.get_config()["decayed"] == [0, 2]
    assert loaded.optimizer.get_config()["l2"] == 0.5
    for each in (model, loaded):
        each.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_checkpoint_goes_on_as_before(tmp_path):
    x, y = _data()
    models = [_model(), _model()]
    for model in models:
        model.compile(Adam(0.01, l2=0.5, decayed=[model.layers[0].kernel]), "mse")
        model.optimizer.build(model.trainable_variables)
    trained, fresh = models
    trained.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    path = tf.train.Checkpoint(model=trained, optimizer=trained.optimizer).write(str(tmp_path / "checkpoint"))
    checkpoint = tf.train.Checkpoint(model=fresh, optimizer=fresh.optimizer)
    checkpoint.read(path).assert_existing_objects_matched()
    for model in models:
        model.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
    for a, b in zip(trained.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_the_average_of_the_weights_is_keras():
    x, y = _data()
    model = _model()
    model.compile(SGD(0.1, l2=0.1, use_ema=True, ema_momentum=0.75), "mse")
    average, last = [w.numpy() for w in model.trainable_variables], []

    class Record(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            last[:] = [w.numpy() for w in model.trainable_variables]
            average[:] = [0.75 * a + 0.25 * w for a, w in zip(average, last, strict=True)]

    model.fit(x, y, epochs=3, batch_size=4, verbose=0, callbacks=[Record()])
    assert np.abs(average[0] - last[0]).max() > 1e-3
    for variable, expected in zip(model.trainable_variables, average, strict=True):
        np.testing.assert_allclose(variable, expected, rtol=1e-4, atol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match=r"SGD needs l2 >= 0, but got l2=-1"):
        SGD(l2=-1)
    a, b, c = (tf.Variable([1.0], name=name) for name in "abb")
    for decayed, found in (([b], "'b:0', but none"), ([7], "7, but none"), (["c:0"], "'c:0', but none")):
        optimizer = Adam(l2=0.1, decayed=decayed)
        for _ in range(2):  # a failed step must not hide the error from the next
            with pytest.raises(ValueError, match=f"the variable {found} of the 1 variables to train"):
                optimizer.build([a])
    with pytest.raises(ValueError, match=r"'b:0', but 2 of the 3 variables"):
        SGD(decayed=["b:0"]).build([a, b, c])


def test_the_config_keeps_what_decays():
    """Names before the optimizer knows the model's variables, positions afterwards."""
    a, b, c = (tf.Variable([1.0], name=name) for name in "abc")
    optimizer = SGD(decayed=[c, a], l2=0.5)
    assert optimizer.get_config()["decayed"] == ["c:0", "a:0"]
    for _ in range(2):
        optimizer = SGD.from_config(optimizer.get_config())
        optimizer.build([a, b, c])
        assert optimizer.get_config()["decayed"] == [2, 0]
        assert optimizer.get_config()["l2"] == 0.5
    assert SGD.from_config(SGD(decayed=[]).get_config()).get_config()["decayed"] == []


_REPLICAS = """
import larq_rep
import numpy as np
import tensorflow as tf
from larq_rep.training.optimizers import SGD, Adam

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(8, 1)).astype(np.float32)


def train(strategy, make):
    tf.keras.utils.set_random_seed(0)
    with strategy.scope():
        model = tf.keras.Sequential([tf.keras.layers.Dense(4, input_shape=(3,)), tf.keras.layers.Dense(1)])
        model.compile(make(0.05, l2=0.5, decayed=[model.layers[0].kernel, model.layers[1].bias]), "mse")
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    model.fit(data.with_options(options), epochs=2, verbose=0)
    model.optimizer.l2 = 2.0
    model.fit(data.with_options(options), epochs=1, verbose=0)
    return model.get_weights()


for make in (SGD, Adam):
    one = train(tf.distribute.get_strategy(), make)
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        strategy = tf.distribute.MirroredStrategy(devices)
        assert strategy.num_replicas_in_sync == len(devices)
        for a, b in zip(one, train(strategy, make)):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
print("equal")
"""


@pytest.mark.parametrize("make", [SGD, Adam])
def test_training_under_a_strategy(make):
    weights = []
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0"])):
        with strategy.scope():
            model = _model()
            model.compile(make(0.01, l2=0.5, decayed=[model.layers[0].kernel]), "mse")
        model.fit(*_data(), epochs=2, batch_size=4, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_the_penalty_counts_once_on_several_replicas():
    """In a process of its own: how many devices there are is settled when TensorFlow starts."""
    run = subprocess.run([sys.executable, "-c", _REPLICAS], capture_output=True, text=True)
    assert run.stdout.endswith("equal\n"), run.stderr[-3000:]


def _elements(variables):
    return sum(v.shape.num_elements() for v in variables)


@pytest.mark.parametrize(
    "network, decayed, others",
    first_quick(
        [
            (ReActNet18, 11_177_984, 526_440),
            (ReActNetA, 28_285_792, 1_057_800),
            (RepReActNetA, 28_317_536, 2_114_536),
        ],
        1,
    ),
)
def test_convolutions_and_shifts_of_reactnet(network, decayed, others):
    model = network()
    chosen = decayed_weights(model, "conv_and_shifts")
    assert _elements(chosen) == decayed
    assert _elements(model.trainable_variables) - decayed == others
    assert _elements(decayed_weights(model, "all")) == decayed + others
    if network is ReActNetA:
        assert len(chosen) == 110
        assert sum(v.shape.rank == 1 for v in chosen) == 78


def test_convolutions_and_shifts_of_presbnet():
    x = image = tf.keras.Input((4, 4, 2))
    sign = LeakyRSign()
    x = tf.keras.layers.Conv2D(3, 1, name="a")(sign(x))
    x = tf.keras.layers.PReLU(shared_axes=[1, 2])(tf.keras.layers.BatchNormalization()(x))
    act = BiasedPReLU()
    x = tf.keras.layers.Dense(5, name="b")(act(x))
    model = tf.keras.Model(image, x)
    chosen = decayed_weights(model, "conv_and_shifts")
    expected = [sign.bias, model.get_layer("a").kernel, act.bias]
    assert [id(v) for v in chosen] == [id(v) for v in expected]


def test_convolutions_and_fc_of_recu():
    """Over the published network: 16 binary convolutions, the stem and the classifier, not the three shortcuts."""
    model = ResNet18(method="recu")
    chosen = decayed_weights(model, "conv_and_fc")
    kernels = [v for v in chosen if v.shape.rank == 4]
    scales = [module.alpha for module in model.submodules if isinstance(module, ReCUSign)]
    assert (len(kernels), len(scales), len(chosen)) == (17, 16, 35)
    assert {id(v) for v in scales} <= {id(v) for v in chosen}
    widths = [64] * 4 + [128] * 4 + [256] * 4 + [512] * 4
    sources = [64] * 5 + [128] * 4 + [256] * 4 + [512] * 3
    binary = sum(9 * a * b for a, b in zip(sources, widths, strict=True))
    assert _elements(chosen) == binary + sum(widths) + 49 * 3 * 64 + 512 * 1000 + 1000


def test_rules_that_cannot_be():
    model = _model()
    with pytest.raises(ValueError, match=r"no rule 'conv'\. Expected one of 'all', 'conv_and_shifts', 'conv_and_fc'"):
        decayed_weights(model, "conv")
    plain = tf.keras.Sequential([tf.keras.layers.Dense(4, input_shape=(3,))], name="convnet")
    with pytest.raises(ValueError, match=r"model 'convnet' matches the rule 'conv_and_fc'"):
        decayed_weights(plain, "conv_and_fc")
