"""lm-evaluation-harness: a task of generation over both APIs, and one of likelihood with the server's own tokenizer."""

import json
import os
from pathlib import Path

from checks import API_KEY, API_URL, MODEL, check, run_command

folder = Path(os.environ["HOME"]) / "tasks"
folder.mkdir()
QUESTIONS = [
    {"question": "What is the capital of France?", "answer": "Paris", "choices": ["Paris", "Rome"], "label": 0},
    {"question": "What is two and two?", "answer": "4", "choices": ["5", "4"], "label": 1},
]
(folder / "questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in QUESTIONS))
COMMON = f"""
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder / "questions.jsonl"}}}
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
"""
GENERATION = """
task: generation
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 10, do_sample: false, temperature: 0}
metric_list: [{metric: exact_match}]
"""
LIKELIHOOD = """
task: likelihood
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: label
metric_list: [{metric: acc}]
"""
(folder / "generation.yaml").write_text(GENERATION + COMMON)
(folder / "likelihood.yaml").write_text(LIKELIHOOD + COMMON)


def evaluate(model: str, route: str, task: str, *more: str, settings: str = "") -> None:
    arguments = f"model={MODEL},base_url={API_URL}/{route},num_concurrent=1,max_retries=1{settings}"
    words = ("--model", model, "--model_args", arguments, "--include_path", str(folder), "--tasks", task, *more)
    assert task in run_command("lm_eval", *words, OPENAI_API_KEY=API_KEY)


@check
def chat_generation() -> None:
    evaluate("local-chat-completions", "chat/completions", "generation", "--apply_chat_template")


@check
def generation() -> None:
    evaluate("local-completions", "completions", "generation", settings=",tokenizer_backend=None")


@check
def likelihood_with_the_servers_tokenizer() -> None:
    evaluate("local-completions", "completions", "likelihood", settings=",tokenizer_backend=remote")
