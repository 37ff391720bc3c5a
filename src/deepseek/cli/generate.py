"""`deepseek generate`: continue a text."""

from collections import deque

from deepseek.cli import options
from deepseek.cli.console import counted, err, print_json, print_pieces
from deepseek.cli.sampling import given_options, over_recommended
from deepseek.errors import GenerationError
from deepseek.sampling import SamplingParams

DEFAULTS = SamplingParams()


def generate(
    model: options.ModelName = None,
    prompt: options.Prompt = None,
    max_tokens: options.MaxTokens = DEFAULTS.max_tokens,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    seed: options.Seed = DEFAULTS.seed,
    stop: options.Stop = None,
    revision: options.Revision = None,
    backend: options.Backend = "engine",
    quantize: options.QuantizeWeights = "auto",
    threads: options.Threads = None,
    kv_cache_dtype: options.CacheDtype = "auto",
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    allow_unknown_keys: options.AllowUnknownKeys = False,
    as_json: options.AsJson = False,
) -> None:
    """Continue a text with a model: the bare continuation on standard output.

    Examples:

        deepseek generate --prompt "The three primary colours are" --max-tokens 20

        cat story.txt | deepseek generate ./my-model --temperature 0.8 --seed 1
    """
    from deepseek.cli.session import Wanted, check_model_name, open_session, read_prompt

    given = given_options(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        stop=stop,
    )
    check_model_name(model)
    text = read_prompt(prompt)
    if text is None:
        raise GenerationError("there is no prompt; give one with --prompt or on standard input")
    session = open_session(
        Wanted(
            model=model,
            backend=backend,
            revision=revision,
            dtype=dtype,
            device=device,
            quantize=quantize,
            threads=threads,
            kv_cache_dtype=kv_cache_dtype,
            allow_unknown_keys=allow_unknown_keys,
        )
    )
    params = over_recommended(model, revision, given)
    pieces = session.stream(session.tokenizer.encode(text), params)
    if as_json:
        deque(pieces, maxlen=0)
    else:
        print_pieces(pieces)
    answer = session.answer
    if as_json:
        print_json(
            {
                "text": answer.text,
                "token_ids": answer.token_ids,
                "finish_reason": answer.finish_reason,
                "prompt_tokens": answer.prompt_tokens,
                "seconds_to_first_token": round(answer.seconds_to_first_token, 4),
                "tokens_per_second": round(answer.tokens_per_second, 2),
            }
        )
    else:
        err.print(f"[dim]{counted(len(answer.token_ids), 'token')}, {answer.tokens_per_second:.1f} tokens/s[/]")
