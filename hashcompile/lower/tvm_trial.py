"""Times candidates in a process of its own: one that crashes or hangs takes nothing with it.

Run as a file, not imported. Each line of its standard input is `{candidate}`, a file with TVM's module, target and
the arguments of its function, and is answered by `{seconds}`, of several runs, or by `{failed}`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

LEAST_MS = 100  # of timed runs: a candidate takes microseconds, and one run tells little


def seconds(candidate: dict[str, Any]) -> list[float]:
    import numpy as np
    import tvm

    built = tvm.driver.build(
        tvm.ir.load_json(candidate["module"]), target=tvm.ir.load_json(candidate["target"])
    )
    generator = np.random.default_rng(0)
    given = [
        tvm.runtime.tensor(generator.standard_normal(shape).astype(dtype))
        for dtype, shape in candidate["arguments"]
    ]
    timed = built.time_evaluator("main", tvm.cpu(), number=1, repeat=3, min_repeat_ms=LEAST_MS // 3)
    return [float(each) for each in timed(*given).results]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what TVM prints must not pass for an answer
    sys.modules["torch"] = None  # type: ignore[assignment] # TVM imports it where there is one
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {
                "seconds": seconds(json.loads(Path(json.loads(line)["candidate"]).read_text()))
            }
        except Exception as error:  # most candidates are no good, and the search learns from it
            answer = {"failed": str(error).strip() or type(error).__name__}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
