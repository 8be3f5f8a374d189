"""Ends delegates and interpreters in every order: lifetimes.py FOLDER, with network.tflite, x.npy and y.npy.

A program of its own, for it must not crash, on whichever TFLite is installed. Prints how many profiles the delegate
has to have printed, one for each interpreter that ran with the option.
"""

import gc
import sys
import threading
import weakref

import numpy as np
from larq_rep_runtime import delegate_path
from larq_rep_runtime.interpreter import _engine

FOLDER = sys.argv[1]
with open(FOLDER + "/network.tflite", "rb") as file:
    CONTENT = file.read()
X, Y = np.load(FOLDER + "/x.npy"), np.load(FOLDER + "/y.npy")
ENGINE, LOAD = _engine()
PROFILED = []


def make_delegate(profile):
    return LOAD(delegate_path(), {"profile": str(profile), "num_threads": "2"})


def make_interpreter(delegate, profile):
    interpreter = ENGINE(model_content=CONTENT, experimental_delegates=[delegate])
    interpreter.allocate_tensors()
    run(interpreter)
    if profile:
        PROFILED.append(1)
    return interpreter


def run(interpreter, batch=1):
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, (batch, *X.shape[1:]))
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, X[:batch])
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert np.array_equal(found, Y[:batch]), "other results"


def destroy(delegate):
    """What Python's Delegate does when it is collected, now."""
    delegate.__del__()


def delegate_first(profile):
    delegate = make_delegate(profile)
    interpreters = [make_interpreter(delegate, profile) for _ in range(3)]
    destroy(delegate)
    for batch in (1, 3, 2):
        for interpreter in interpreters:
            run(interpreter, batch)
    # Other memory comes to where the delegate may have been.
    others = [make_delegate(profile) for _ in range(20)]
    while interpreters:
        run(interpreters[-1])
        interpreters.pop()
    del others


def in_threads(profile):
    """Interpreters of one delegate that run and end in threads of their own, the delegate before them."""
    delegate = make_delegate(profile)

    def live(interpreter):
        for batch in (1, 2, 1, 3):
            run(interpreter, batch)

    threads = [threading.Thread(target=live, args=(make_interpreter(delegate, profile),)) for _ in range(3)]
    destroy(delegate)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Owner:
    pass


def of_itself(interpreter, delegate):
    interpreter.itself = interpreter


def of_delegate(interpreter, delegate):
    delegate.interpreter = interpreter


def of_callback(interpreter, delegate):
    owner = Owner()
    owner.interpreter, owner.delegate, interpreter.callback = interpreter, delegate, lambda: owner


def of_callback_of_the_delegate(interpreter, delegate):
    owner = Owner()
    owner.delegate, owner.interpreter, delegate.callback = delegate, interpreter, lambda: owner
    weakref.finalize(owner, lambda: None)


def of_traceback(interpreter, delegate):
    kept = None
    try:
        raise ValueError(interpreter, delegate)
    except ValueError as error:
        kept = error
    interpreter.kept = kept


def in_a_cycle(profile):
    for tie in (of_itself, of_delegate, of_callback, of_callback_of_the_delegate, of_traceback):
        for count in (1, 2):
            delegate = make_delegate(profile)
            for _ in range(count):
                tie(make_interpreter(delegate, profile), delegate)
            del delegate
            gc.collect()


for profile in (0, 1):
    for scene in (delegate_first, in_threads, in_a_cycle):
        scene(profile)
        gc.collect()
print(len(PROFILED), flush=True)

# What is left when Python ends.
last = make_delegate(0)
left = [make_interpreter(last, 0) for _ in range(2)]
for one in left:
    of_callback(one, last)
destroy(make_delegate(0))
kept = make_interpreter(make_delegate(0), 0)
waiting = threading.Thread(target=lambda one: threading.Event().wait(), args=(kept,), daemon=True)
waiting.start()
