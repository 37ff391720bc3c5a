"""lm-evaluation-harness asks our server and Transformers the same questions: are the scores the same?

    pip install 'lm-eval[api]'        (in an environment of its own where it clashes; --lm-eval names its command)
    python benchmarks/lm_eval_scores.py [--lm-eval /path/to/lm_eval]

The task is a file of multiple-choice questions written here (capitals, sums, opposites), scored by the likelihood of
each answer, over `local-completions` with echo and logprobs. Both read the same float32 weights; the server computes
with 16-bit activations, so that what differs is arithmetic alone. The last line is JSON.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Egypt": "Cairo", "Spain": "Madrid", "Cuba": "Havana",
            "Greece": "Athens", "Russia": "Moscow", "Germany": "Berlin", "Austria": "Vienna"}  # fmt: skip
OPPOSITES = {"hot": "cold", "big": "small", "day": "night", "up": "down", "fast": "slow", "light": "dark", "old": "new",
             "open": "closed", "wet": "dry", "early": "late"}  # fmt: skip
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {data}}}}}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
NAME = "small_choices"


def main() -> None:
    options = _options()
    from deepseek.checkpoint.convert import convert
    from deepseek.hub import resolve

    with tempfile.TemporaryDirectory() as folder:
        _write_task(Path(folder))
        model = Path(folder) / "model"
        convert(resolve(options.model).path, model, dtype="F32")  # a folder that Transformers reads too
        transformers = _scores(
            options, folder, "hf", f"pretrained={model},dtype=float32,add_bos_token=False", "transformers"
        )  # fmt: skip
        with _server(str(model), options) as server:
            address = _address(server)
            ours = _scores(
                options, folder, "local-completions",
                f"model=model,base_url={address}/v1/completions,tokenizer={model},tokenized_requests=True,"
                "num_concurrent=4,add_bos_token=False", "ours",
            )  # fmt: skip
            server.terminate()
            server.communicate(timeout=60)
    print(json.dumps({"same": transformers["scores"] == ours["scores"], "transformers": transformers, "ours": ours}))


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--lm-eval", default="lm_eval", help="the harness's command")
    parser.add_argument("--quantize", default="f32")
    return parser.parse_args()


def _questions() -> list[dict[str, Any]]:
    asked = [(f"The capital of {country} is", city, list(CAPITALS.values())) for country, city in CAPITALS.items()]
    asked += [(f"The opposite of {word} is", other, list(OPPOSITES.values())) for word, other in OPPOSITES.items()]
    asked += [
        (f"{a} + {b} =", str(a + b), [str(a + b + off) for off in (0, 1, -1, 10)])
        for a in range(2, 12, 2) for b in (3, 8)
    ]  # fmt: skip
    told = []
    for place, (question, answer, others) in enumerate(asked):
        wrong = [other for other in others if other != answer]
        choices = [wrong[(place + step) % len(wrong)] for step in range(3)]
        choices.insert(place % 4, answer)
        told.append({"question": question, "choices": [f" {choice}" for choice in choices], "answer": place % 4})
    return told


def _write_task(folder: Path) -> None:
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in _questions()))
    (folder / f"{NAME}.yaml").write_text(TASK.format(name=NAME, data=data))


def _server(model: str, options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", "from deepseek.cli import main; main()", "serve", model, "--port", "0",
         "--access-log", "off", "--served-model-name", "model", "--quantize", options.quantize,
         "--activation-bits", "16"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _address(server: "subprocess.Popen[str]") -> str:
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"API\s+(http\S+)/v1", line):
            return found[1]
    raise SystemExit("the server did not start")


def _scores(options: Any, folder: str, kind: str, arguments: str, name: str) -> dict[str, Any]:
    """Scores, and for each question the choice taken and the log-likelihood of each."""
    output = Path(folder) / name
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": folder, "OPENAI_API_KEY": "none",
    }  # fmt: skip
    environment.pop("PYTHONPATH", None)
    subprocess.run(
        [options.lm_eval, "--model", kind, "--model_args", arguments, "--tasks", NAME, "--include_path", folder,
         "--output_path", str(output), "--log_samples", "--batch_size", "1",
         *(["--device", "cpu"] if kind == "hf" else [])],
        check=True, env=environment, stdout=sys.stderr,
    )  # fmt: skip
    results = json.loads(next(output.rglob("results_*.json")).read_text())["results"][NAME]
    samples = [json.loads(line) for line in next(output.rglob("samples_*.jsonl")).read_text().splitlines()]
    likelihoods = [
        [float(each[0][0]) for each in sample["resps"]] for sample in sorted(samples, key=lambda one: one["doc_id"])
    ]  # fmt: skip
    return {
        "scores": {key: value for key, value in results.items() if key.startswith("acc") and "stderr" not in key},
        "taken": [max(range(len(each)), key=each.__getitem__) for each in likelihoods],
        "likelihoods": likelihoods,
    }


if __name__ == "__main__":
    main()
