"""Training as published: recipes, their two phases, and runs that can be stopped and resumed.

```python
from larq_rep import training, zoo

config = training.Config("RepResNet20", data="digits", recipe=training.get_recipe("irnet"))
model = training.train(lambda config: zoo.RepResNet20(input_shape=(16, 16, 1)), "runs/digits", config)
```

Its parts also work with plain `model.fit`: optimizers, learning rates, quantizer schedules, data, losses.
"""

from larq_rep import lazy
from larq_rep.training.augmentation import Augmentation
from larq_rep.training.datasets import PipelineMonitor, Source
from larq_rep.training.ensembles import bagging, boosting, members
from larq_rep.training.folder import Config, RunError, read_metrics, versions
from larq_rep.training.norms import calibrate_batch_norm
from larq_rep.training.optimizers import SGD, Adam, BopAndAdam, RAdam, decayed_weights
from larq_rep.training.phases import transfer, with_binary_weights, with_real_weights, with_synchronized_norms
from larq_rep.training.published import RECIPES, get_recipe
from larq_rep.training.recipe import Phase, Recipe
from larq_rep.training.run import load, train
from larq_rep.training.schedules import (
    Cosine,
    EDESchedule,
    Exponential,
    Gamma,
    INQSchedule,
    LearningRate,
    Linear,
    RBNNSchedule,
    ReCUSchedule,
    Steps,
    WarmupSteps,
    WeightDecay,
    schedules_for,
)
from larq_rep.training.statistics import BinaryStatistics
from larq_rep.training.trainee import Trainee
from larq_rep.training.workers import WorkerLost, WorkerMissing

# The old name of `published` and `recipe`; it warns and works until 0.3.
__getattr__, __dir__ = lazy.modules(__name__, "recipes")

__all__ = [
    "RECIPES",
    "SGD",
    "Adam",
    "Augmentation",
    "BinaryStatistics",
    "BopAndAdam",
    "Config",
    "Cosine",
    "EDESchedule",
    "Exponential",
    "Gamma",
    "INQSchedule",
    "LearningRate",
    "Linear",
    "Phase",
    "PipelineMonitor",
    "RAdam",
    "RBNNSchedule",
    "ReCUSchedule",
    "Recipe",
    "RunError",
    "Source",
    "Steps",
    "Trainee",
    "WarmupSteps",
    "WeightDecay",
    "WorkerLost",
    "WorkerMissing",
    "bagging",
    "boosting",
    "calibrate_batch_norm",
    "decayed_weights",
    "get_recipe",
    "load",
    "members",
    "read_metrics",
    "schedules_for",
    "train",
    "transfer",
    "versions",
    "with_binary_weights",
    "with_real_weights",
    "with_synchronized_norms",
]
