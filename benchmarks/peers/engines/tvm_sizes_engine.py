"""TVM with a library for each case, made for its sizes. hashcompile/bench_worker.py says what an engine is.

Request: that of the engine `base`, which runs one library, with several `files`, each named by the sizes of its inputs.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np


def base_of(request: dict[str, Any]) -> Any:
    spec = spec_from_file_location("base", request["base"])
    assert spec is not None and spec.loader is not None
    base = module_from_spec(spec)
    spec.loader.exec_module(base)
    return base


def imports(request: dict[str, Any]) -> None:
    base_of(request).imports(request)


def load(request: dict[str, Any]) -> dict[str, Any]:
    return request


def bind(request: dict[str, Any], case: dict[str, Any]) -> Any:
    with np.load(case["inputs"]) as given:
        sizes = "_".join("x".join(map(str, given[name].shape)) for name in request["names"])
    (file,) = [path for path in request["files"] if Path(path).stem == sizes]
    base = base_of(request)
    return base.bind(base.load({**request, "files": [file]}), case)
