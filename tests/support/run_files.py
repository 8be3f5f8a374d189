"""What is compared of the folders of two runs."""

import h5py

from larq_rep import training


def arrays(file):
    """All arrays of a file of weights, by name."""
    found = {}

    def read(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(file) as content:
        content.visititems(read)
    return found


def metrics(folder):
    """The rows without what the clock says."""
    rows = training.read_metrics(folder)
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]
