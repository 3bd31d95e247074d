"""`amount="auto"` again and again, with fine-tuning in between: when does a rule stop, and was it right to?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import hashcompile as hc
from hashcompile.core.console import progress, table

from .kept import Record
from .measure import CALIBRATION
from .subjects import Subject
from .train import top1, train


def rounds(subject: Subject, rule: str, count: int, epochs: float, keep: Path | None = None) -> Record:
    """What the rule saw in each of the `rounds`, and top-1 in percent in front of fine-tuning and behind it.

    keep: fine-tuning goes on from files whose names begin like it, one a round.
    """
    model, seen, told = subject.model, 0, []
    with progress(f"{subject.name}, {rule}", count) as bar:
        for number in range(1, count + 1):
            compiled = hc.compile(
                model,
                (subject.test[0][:2],),
                hc.PruneChannels("auto", rule=rule, correction="refit"),
                subject.calibration(CALIBRATION),
                compute="float",
            )
            made, model = compiled.plan.reshaping, compiled.graph_module
            assert made is not None
            found, seen = made.findings[seen:], len(made.findings)
            before = top1(compiled, *subject.test)
            train(
                model,
                *subject.train,
                epochs=epochs,
                rate=subject.rate,
                keep=None if keep is None else keep.with_stem(f"{keep.stem}_{number}"),
                moved=subject.moved,
            )
            told.append(
                {
                    "round": number,
                    "macs": made.after.macs / made.before.macs,
                    "parameters": made.after.parameters / made.before.parameters,
                    "removed": sum(each.removed for each in found),
                    "measure": sum(each.measure for each in found) / len(found),
                    "verdicts": dict(Counter(each.verdict for each in found)),
                    "before": before,
                    "after": top1(compiled, *subject.test),
                }
            )
            bar.advance()
    return {"rounds": told}


def verdicts(found: Sequence[Record]) -> object:
    """A row a round: how many groups of layers the rule gave which verdict."""
    rows = [
        (
            str(each["round"]),
            f"{each['macs']:.1%}",
            f"{each['parameters']:.1%}",
            str(each["removed"]),
            f"{each['measure']:.4f}",
            ", ".join(f"{count} {verdict}" for verdict, count in sorted(each["verdicts"].items())),
            f"{each['before']:.2f}",
            f"{each['after']:.2f}",
        )
        for each in found
    ]
    header = (
        ">round",
        ">MACs left",
        ">parameters left",
        ">units removed",
        ">measure, mean",
        "groups",
        ">top-1",
        ">fine-tuned",
    )
    return table(header, rows)
