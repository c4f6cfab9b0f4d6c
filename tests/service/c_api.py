"""Runs a SavedModel through TensorFlow's C API alone: `python c_api.py MODEL FOLDER`.

No part of TensorFlow's Python is imported; the library is found beside it. The folder holds
jobs.json and NAME.in.npz, the results go to NAME.out.npz.
"""

import ctypes
import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np

FLOAT, INT64 = 1, 9  # TF_DataType
DTYPES = {np.dtype(np.float32): FLOAT, np.dtype(np.int64): INT64}


class Output(ctypes.Structure):
    """TF_Output."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


def load_library():
    package = Path(importlib.util.find_spec("tensorflow").origin).parent
    ctypes.CDLL(str(package / "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(package / "libtensorflow_cc.so.2"), ctypes.RTLD_GLOBAL)
    for name in [
        "TF_NewStatus",
        "TF_NewGraph",
        "TF_NewSessionOptions",
        "TF_LoadSessionFromSavedModel",
        "TF_GraphOperationByName",
        "TF_AllocateTensor",
        "TF_TensorData",
    ]:
        getattr(library, name).restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    return library


def main(model, folder):
    library = load_library()
    pointer = ctypes.c_void_p
    status = pointer(library.TF_NewStatus())

    def check():
        if library.TF_GetCode(status):
            raise RuntimeError(library.TF_Message(status).decode())

    graph = pointer(library.TF_NewGraph())
    options = pointer(library.TF_NewSessionOptions())
    tags = (ctypes.c_char_p * 1)(b"serve")
    session = pointer(
        library.TF_LoadSessionFromSavedModel(
            options, None, str(model).encode(), tags, 1, graph, None, status
        )
    )
    check()

    def output(name):
        operation, index = name.split(":")
        found = library.TF_GraphOperationByName(graph, operation.encode())
        return Output(found, int(index))

    def tensor(array):
        dims = (ctypes.c_int64 * array.ndim)(*array.shape)
        made = pointer(
            library.TF_AllocateTensor(
                DTYPES[array.dtype], dims, array.ndim, ctypes.c_size_t(array.nbytes)
            )
        )
        ctypes.memmove(library.TF_TensorData(made), array.tobytes(), array.nbytes)
        return made

    for name, job in json.loads((folder / "jobs.json").read_text()).items():
        given = np.load(folder / f"{name}.in.npz")
        inputs = (Output * len(given))(*(output(job["inputs"][key]) for key in given))
        values = (pointer * len(given))(*(tensor(given[key]) for key in given))
        keys = list(job["outputs"])
        outputs = (Output * len(keys))(*(output(job["outputs"][key]) for key in keys))
        results = (pointer * len(keys))()
        library.TF_SessionRun(
            session, None, inputs, values, len(given), outputs, results, len(keys),
            None, 0, None, status,
        )  # fmt: skip
        check()
        found = {}
        for key, result in zip(keys, results, strict=True):
            shape = job["shapes"][key]
            data = ctypes.string_at(library.TF_TensorData(pointer(result)), 4 * math.prod(shape))
            found[key] = np.frombuffer(data, np.float32).reshape(shape)
        np.savez(folder / f"{name}.out.npz", **found)
    if "tensorflow" in sys.modules:
        raise RuntimeError("TensorFlow's Python was imported.")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
