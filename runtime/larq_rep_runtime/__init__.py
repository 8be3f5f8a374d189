"""Binary networks on stock TFLite and LiteRT.

```python
interpreter = larq_rep_runtime.Interpreter("network.tflite", num_threads=4)
logits = interpreter.predict(images)
```
"""

from larq_rep_runtime.interpreter import Interpreter
from larq_rep_runtime.library import DelegateError, available_implementations, delegate_path
from larq_rep_runtime.litert import litert_environment
from larq_rep_runtime.profile import profile

__all__ = [
    "DelegateError",
    "Interpreter",
    "available_implementations",
    "delegate_path",
    "litert_environment",
    "profile",
]
