"""Needle recall of runs of `deepseek train`: before the first step and after each stage, with and without a window.

Run: deepseek train recipes/needle.toml && python benchmarks/needles.py runs/needle [RUN ...]
Prints one JSON line: for each run its recipe, and for each time needles were looked for the step, tokens trained on so
far, and recall (share of the needle's values that the model finds, mean over depths) by length, with full attention and
with the same weights behind the recipe's sliding window. Chance is 1/60. A recipe without lengths to look at in its
`needle` table leaves nothing to print, which is an error.
"""

import argparse
import json
from pathlib import Path
from typing import Any


def recalls(run: Path) -> list[dict[str, Any]]:
    """One entry a time, in order; the same step with both sights is one entry."""
    found: dict[int, dict[str, Any]] = {}
    for line in (run / "needle.jsonl").read_text().splitlines():
        record = json.loads(line)
        entry = found.setdefault(record["step"], {"step": record["step"], "tokens": record["tokens"]})
        sight = "full" if record["window"] is None else f"window of {record['window']}"
        entry[sight] = {length: round(share, 3) for length, share in record["recall"].items()}
    return list(found.values())


def summary(run: Path) -> dict[str, Any]:
    facts = json.loads((run / "run.json").read_text())
    log = (run / "log.jsonl").read_text().splitlines()
    hours = sum(json.loads(line)["seconds"] for line in log) / 3600
    return {"recipe": facts["recipe"]["name"], "hours": round(hours, 2), "recall": recalls(run)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    options = parser.parse_args()
    for run in options.runs:
        if not (run / "needle.jsonl").exists():
            parser.error(f"{run} holds no needle.jsonl: give the folder of a run whose recipe says needle.lengths")
    print(json.dumps({"benchmark": "needles", "runs": [summary(run) for run in options.runs]}))


if __name__ == "__main__":
    main()
