"""PyTorch, eager or compiled. hashcompile/bench_worker.py says what an engine is.

Request: `{path, recipe, compile, cache, threads}`; the recipe's module lies in the folder `path`.
"""

import os
import sys
from importlib import import_module
from typing import Any

import numpy as np


def imports(request: dict[str, Any]) -> None:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = request["cache"]
    import torch

    torch.set_num_threads(request["threads"])
    sys.path.insert(0, request["path"])
    import_module(request["recipe"]["module"])


def load(request: dict[str, Any]) -> Any:
    import torch

    recipe = request["recipe"]
    model = getattr(import_module(recipe["module"]), recipe["function"])(*recipe["arguments"])
    return torch.compile(model, dynamic=False) if request["compile"] else model


def bind(model: Any, case: dict[str, Any]) -> Any:
    import torch

    with np.load(case["inputs"]) as given:
        inputs = {name: torch.from_numpy(given[name]) for name in given.files}

    def run() -> Any:
        with torch.inference_mode():
            return model(**inputs)

    return run
