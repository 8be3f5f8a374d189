"""The networks of the literature, untrained: constructors in the manner of larq_zoo."""

from larq_rep.zoo.reactnet import ReActNetA, RepReActNetA
from larq_rep.zoo.registry import get_model, list_models
from larq_rep.zoo.resnet import RepResNet20, ResNet20

__all__ = ["ReActNetA", "RepReActNetA", "RepResNet20", "ResNet20", "get_model", "list_models"]
