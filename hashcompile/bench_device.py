"""The far end of `bench --on`: measures what lies beside it, and tells in JSON lines. ssh.py sends it there.

It stands in a folder with `request.json`, `{entries, runs}`: the fields of each Entry, with paths from here. Answers:
`{advance}` for each step, then `{measured: [{loads, latencies}]}`, or `{error}`.
"""

import json
from dataclasses import asdict
from pathlib import Path

from hashcompile.core.errors import ArtifactError
from hashcompile.measure import measure
from hashcompile.race import Entry


def say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    request = json.loads(Path("request.json").read_text())
    entries = [
        Entry(each["name"], Path(each["engine"]), each["request"], each["cases"])
        for each in request["entries"]
    ]
    try:
        measured = measure(entries, request["runs"], lambda: say({"advance": 1}))
    except ArtifactError as error:
        say({"error": str(error)})
    else:
        say({"measured": [asdict(each) for each in measured]})
