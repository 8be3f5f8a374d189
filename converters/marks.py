"""Marks, in the graph of a model, the signs of which quantized maps and kernels are sums.

A graph does not show of which signs a value of several levels consists, but its quantizer knows (`planes`, `bases`).
While a model is traced, the result of such a quantizer passes an `IdentityN`, whose other inputs are the parts of the
sum. `planes.lower` reads these marks and removes them.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import larq as lq
import tensorflow as tf
from tensorflow.core.framework.node_def_pb2 import NodeDef

from larq_rep.quantizers.base import bases_of, planes_of

PLANES, BASES = "planes_of_signs", "bases_of_kernel"
_MARK = re.compile(rf"(?:.*/)?({PLANES}|{BASES})(_\d+)?")


def mark_of(node: tf.Operation | NodeDef) -> str:
    """`PLANES` or `BASES` for a mark: an `IdentityN` of the value, then of the parts; empty for other nodes."""
    found = _MARK.fullmatch(node.name) if (getattr(node, "type", None) or node.op) == "IdentityN" else None
    return found[1] if found else ""


@contextlib.contextmanager
def marked(modules: Iterable[tf.Module]) -> Iterator[None]:
    """Makes the quantizers among the modules of a model mark their results in the graphs that are traced meanwhile."""
    quantizers = [module for module in modules if isinstance(module, lq.quantizers.Quantizer)]
    patched = []
    try:
        for quantizer in quantizers:
            if planes := planes_of(quantizer):
                _patch(quantizer, PLANES, functools.partial(_planes, planes))
            elif bases := bases_of(quantizer):
                _patch(quantizer, BASES, functools.partial(_bases, bases))
            else:
                continue
            patched.append(quantizer)
        yield
    finally:
        for quantizer in patched:
            del vars(quantizer)["call"]


def _patch(quantizer: lq.quantizers.Quantizer, name: str, parts: Callable[[tf.Tensor], list[Any]]) -> None:
    call = quantizer.call

    @functools.wraps(call)
    def marking(x: tf.Tensor, *args: Any, **kwargs: Any) -> tf.Tensor:
        values = [call(x, *args, **kwargs), *parts(x)]
        return tf.identity_n([tf.convert_to_tensor(value) for value in values], name=name)[0]

    # Not an attribute as Keras sees it, which would track it.
    vars(quantizer)["call"] = marking


def _planes(planes: Callable[[tf.Tensor], Any], x: tf.Tensor) -> list[Any]:
    offset, terms = planes(x)
    return [offset, *(part for term in terms for part in term)]


def _bases(bases: Callable[[tf.Tensor], Any], x: tf.Tensor) -> list[Any]:
    return [part for term in bases(x) for part in term]
