"""Pictures of networks and of their training, after the figures of ReActNet and RepBNN.

Every function returns a `matplotlib.figure.Figure`, which `write` saves to a file:

```python
plots.write(plots.coefficients(model), "coefficients.png")
```
"""

from larq_rep.plots.file import write
from larq_rep.plots.networks import activations, coefficients, feature_maps
from larq_rep.plots.runs import Point, accuracy_against_ops, history

__all__ = ["Point", "accuracy_against_ops", "activations", "coefficients", "feature_maps", "history", "write"]
