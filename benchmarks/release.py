"""A trained run as a folder to give away: one GGUF file, its model card, its curves and the records of its training.

Run: python benchmarks/release.py RUN --out checkpoints/tiny-moe [--twin RUN] [--dtype Q4_0] [--machine TEXT]
RUN is a run folder of `deepseek train`. Held-out loss and balance are measured as `held_out_balance.py` does, of the
checkpoint and of the file that is given away. `deepseek serve` of the folder shows the records on its Training page.
Prints one JSON line. Every figure of the card comes from the run, from its data's report or from this measurement.
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import jinja2

from deepseek.checkpoint.convert import convert
from deepseek.training.prepared import prepared_data
from deepseek.training.recipe import Recipe
from held_out_balance import draw, log_of, measure, newest_checkpoint

LOADS_EVERY = 20  # steps between the loads of experts that are kept
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
Facts = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--twin", type=Path, metavar="RUN", help="the same run of a dense model, for comparison")
    parser.add_argument("--dtype", default="Q4_0")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="at most so many held-out ones of each source")
    parser.add_argument("--machine", help="what it was trained on, in words")
    options = parser.parse_args()
    name = options.out.name
    options.out.mkdir(parents=True, exist_ok=True)
    weights = options.out / f"{name}-{options.dtype.lower()}.gguf"
    convert(newest_checkpoint(options.run), weights, dtype=options.dtype, overwrite=True)
    results = [
        {"name": f"{name}, as trained", **measure(options.run, options.tokens)},
        {"name": f"{name}, this file", **measure(options.run, options.tokens, checkpoint=weights)},
    ]
    if options.twin:
        results.append({"name": "its dense twin, as trained", **measure(options.twin, options.tokens)})
    facts = json.loads((options.run / "run.json").read_text())
    write_records(options.run, facts, options.out / "training")
    draw([run for run in (options.run, options.twin) if run], options.out / "curves.svg")
    (options.out / "README.md").write_text(card(options, facts, weights, results))
    print(json.dumps({"benchmark": "release", "bytes": weights.stat().st_size, "results": results}))


def card(options: argparse.Namespace, facts: Facts, weights: Path, results: list[Facts]) -> str:
    recipe, machine, log = facts["recipe"], facts["machine"], log_of(options.run)
    report = json.loads((prepared_data(Recipe.from_dict(recipe).data) / "report.json").read_text())
    samples_file = options.run / "samples.jsonl"
    samples = [json.loads(line) for line in samples_file.read_text().splitlines()] if samples_file.exists() else []
    template = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return template.render(
        name=options.out.name,
        facts=facts,
        config=facts["config"],
        moe=facts["config"]["moe"],
        recipe=recipe,
        report=report,
        results=results,
        samples=list({line["prompt"]: line for line in samples}.values()),  # the last of each prompt
        weights={"name": weights.name, "bytes": weights.stat().st_size},
        steps=len(log),
        tokens=log[-1]["tokens"],
        hours=sum(line["seconds"] for line in log) / 3600,
        speed=statistics.median(line["tokens_per_second"] for line in log),
        machine=options.machine or f"{machine['cores']} cores of {machine['processor']}",
        millions=lambda number: f"{number / 1e6:.1f}",
    )


def write_records(run: Path, facts: Facts, folder: Path) -> None:
    """As the studio reads them; loads of experts at every 20th step, and no path of the machine."""
    folder.mkdir(exist_ok=True)
    data = {"recipe": "data/" + Path(facts["recipe"]["data"]["recipe"]).name}
    shown = {**facts, "recipe": {**facts["recipe"], "data": data}}
    (folder / "run.json").write_text(json.dumps(shown, indent=2, ensure_ascii=False) + "\n")
    with (folder / "log.jsonl").open("w") as log:
        for line in log_of(run):
            if "layers" in line and line["step"] % LOADS_EVERY:
                del line["layers"]
            log.write(json.dumps(rounded(line)) + "\n")
    for name in ("evaluations.jsonl", "samples.jsonl"):
        if (run / name).exists():
            shutil.copyfile(run / name, folder / name)


def rounded(value: Any) -> Any:
    """Floats to five digits, however deep."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return {key: rounded(item) for key, item in value.items()} if isinstance(value, dict) else value


if __name__ == "__main__":
    main()
