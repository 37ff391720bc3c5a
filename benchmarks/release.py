"""A run of recipes/tiny-moe.toml as a folder to give away: one GGUF file, model card, curves, records of the training.

Run: python benchmarks/release.py RUN --out checkpoints/tiny-moe [--stage NAME] [--earlier RECORDS] [--twin RUN]
RUN is its run folder, whole or as far as the end of a stage; RECORDS the folder of FOLDER/training that tells of the
run it went on from. Held-out loss and balance are measured
as `held_out_balance.py` does, of the checkpoint and of the file that is given away. `deepseek serve` of the folder
shows the records on its Training page. Prints one JSON line. Every figure of the card comes from the run, from its
data's report or from this measurement. --machine TEXT: what it was trained on, in words.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import jinja2

from deepseek import Engine
from deepseek.checkpoint.convert import convert
from deepseek.training.prepared import prepared_data
from deepseek.training.recipe import Recipe
from held_out_balance import draw, log_of, measure, newest_checkpoint

LOADS_EVERY = 20  # steps between the loads of experts that are kept
TEMPERATURE = 0.8  # of the samples
TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
Facts = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stage", help="as far as the end of this one; by default the whole run")
    parser.add_argument("--earlier", type=Path, metavar="RECORDS", help="of the released run that RUN went on from")
    parser.add_argument("--twin", type=Path, metavar="RUN", help="the same run of a dense model, for comparison")
    parser.add_argument("--dtype", default="Q4_0")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="at most so many held-out ones of each source")
    parser.add_argument("--machine", help="what it was trained on, in words")
    options = parser.parse_args()
    name = options.out.name
    options.out.mkdir(parents=True, exist_ok=True)
    facts = json.loads((options.run / "run.json").read_text())
    until = next((stage["stop"] for stage in facts["stages"] if stage["name"] == options.stage), None)

    def trained(run: Path) -> Path:
        return run / "checkpoints" / options.stage if options.stage else newest_checkpoint(run)

    weights = options.out / f"{name}-{options.dtype.lower()}.gguf"
    convert(trained(options.run), weights, dtype=options.dtype, overwrite=True)
    compared = [
        ("as trained", options.run, trained(options.run)),
        ("this file", options.run, weights),
        *([("its dense twin, as trained", options.twin, trained(options.twin))] if options.twin else []),
    ]
    results = [
        {"name": words, **measure(run, options.tokens, checkpoint, until)} for words, run, checkpoint in compared
    ]
    folder = options.out / "training" / facts["recipe"]["name"]
    write_records(
        options.run, folder, until, options.machine or "{cores} cores of {processor}".format(**facts["machine"])
    )
    history = [records_of(each) for each in (options.earlier, folder) if each]
    logs = {name: joined([run["log"] for run in history])}
    if options.twin:
        logs["dense twin"] = log_of(options.twin, until)
    draw(logs, options.out / "curves.svg")
    (options.out / "README.md").write_text(card(options, facts, weights, results, history))
    print(json.dumps({"benchmark": "release", "bytes": weights.stat().st_size, "results": results}))


def records_of(folder: Path) -> Facts:
    """Of one run as `write_records` left them."""
    facts, log = json.loads((folder / "run.json").read_text()), log_of(folder)
    return facts | {
        "log": log,
        "trained_tokens": log[-1]["tokens"],
        "hours": sum(line["seconds"] for line in log) / 3600,
        "speed": statistics.median(line["tokens_per_second"] for line in log),
    }


def joined(logs: list[list[Facts]]) -> list[Facts]:
    """One log of runs that went on from each other: tokens count on."""
    lines: list[Facts] = []
    for log in logs:
        before = lines[-1]["tokens"] if lines else 0
        lines += [{**line, "tokens": line["tokens"] + before} for line in log]
    return lines


def card(options: argparse.Namespace, facts: Facts, weights: Path, results: list[Facts], history: list[Facts]) -> str:
    recipe = facts["recipe"]
    report = json.loads((prepared_data(Recipe.from_dict(recipe).data) / "report.json").read_text())
    template = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return template.render(
        name=options.out.name,
        facts=facts,
        config=facts["config"],
        moe=facts["config"]["moe"],
        report=report,
        results=results,
        samples=samples(weights, recipe["evaluation"]["prompts"]),
        temperature=TEMPERATURE,
        weights={"name": weights.name, "bytes": weights.stat().st_size},
        history=history,
        tokens=sum(run["trained_tokens"] for run in history),
        hours=sum(run["hours"] for run in history),
        millions=lambda number: f"{number / 1e6:.1f}",
    )


def samples(weights: Path, prompts: list[str]) -> list[Facts]:
    with Engine.from_pretrained(weights) as engine:
        sampling = {"max_tokens": 96, "temperature": TEMPERATURE, "seed": 0}
        return [{"prompt": prompt, "text": engine.generate(prompt, **sampling).text} for prompt in prompts]


def write_records(run: Path, folder: Path, until: int | None, machine: str) -> None:
    """As the studio reads them; loads of experts at every 20th step, and no path of the machine."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = json.loads((run / "run.json").read_text())
    data = {"recipe": "data/" + Path(facts["recipe"]["data"]["recipe"]).name}
    model = dict(facts["recipe"]["model"])
    if start := model.get("start_from"):
        model["start_from"] = "/".join(Path(start).parts[-2:])
    facts["recipe"] |= {"data": data, "model": model}
    facts["machine"]["words"] = machine
    (folder / "run.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    with (folder / "log.jsonl").open("w") as log:
        for line in log_of(run, until):
            if "layers" in line and line["step"] % LOADS_EVERY:
                del line["layers"]
            log.write(json.dumps(rounded(line)) + "\n")
    for name in ("evaluations.jsonl", "samples.jsonl"):
        if (run / name).exists():
            lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
            kept = [line for line in lines if until is None or line["step"] <= until]
            (folder / name).write_text("".join(json.dumps(rounded(line), ensure_ascii=False) + "\n" for line in kept))


def rounded(value: Any) -> Any:
    """Floats to five digits, however deep."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return {key: rounded(item) for key, item in value.items()} if isinstance(value, dict) else value


if __name__ == "__main__":
    main()
