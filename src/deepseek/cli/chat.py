"""`deepseek chat`: one answer, or a conversation in the terminal."""

from contextlib import suppress
from typing import TYPE_CHECKING

from deepseek.cli import options
from deepseek.cli.console import counted, err, out, print_pieces
from deepseek.cli.sampling import given_options, over_recommended
from deepseek.errors import DeepseekError
from deepseek.sampling import SamplingParams

if TYPE_CHECKING:
    from deepseek.cli.session import Session

DEFAULTS = SamplingParams(max_tokens=512)

HELP = """\
  /system TEXT   set the system message and start over
  /reset         forget the conversation
  /exit          leave (so does Ctrl-D); Ctrl-C stops an answer
  a line that ends with \\ goes on in the next"""


def chat(
    model: options.ModelName = None,
    prompt: options.Prompt = None,
    system: options.System = None,
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
) -> None:
    """Chat with a model. With --prompt, or text on standard input, answer once and leave.

    Examples:

        deepseek chat

        deepseek chat --prompt "What is the capital of France?"

        deepseek chat deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B --max-tokens 2000
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
    question = read_prompt(prompt)
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
    conversation = Conversation(session, params, system)
    if question is not None:
        conversation.ask(question)
    else:
        _converse(conversation)


class Conversation:
    """The messages so far and how to answer the next one."""

    def __init__(self, session: "Session", params: SamplingParams, system: str | None) -> None:
        self.session = session
        self.params = params
        self.begin(system)

    def begin(self, system: str | None) -> None:
        self.system = system
        self.messages: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []

    def ask(self, text: str) -> None:
        """Print the answer as it comes, then its figures. Ctrl-C keeps what was said; an error keeps nothing."""
        asked = [*self.messages, {"role": "user", "content": text}]
        ids = self.session.chat_ids(asked)
        try:
            print_pieces(self.session.stream(ids, self.params))
        except KeyboardInterrupt:
            self._keep(asked)
            raise
        self._keep(asked)

    def _keep(self, asked: list[dict[str, str]]) -> None:
        answer = self.session.answer
        cut = " (stopped at --max-tokens)" if answer.finish_reason == "length" else ""
        tokens = counted(len(answer.token_ids), "token")
        err.print(f"[dim]{tokens}, {answer.tokens_per_second:.1f} tokens/s{cut}[/]")
        self.messages = [*asked, {"role": "assistant", "content": answer.text}]


def _converse(conversation: Conversation) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401  editing and history at the prompt

    out.print("[dim]Ask something; /help lists commands, Ctrl-D leaves.[/]")
    while (line := _read_line()) is not None:
        try:
            if not _obey(conversation, line):
                return
        except DeepseekError as error:
            err.print(f"error: {error}", style="bold red", markup=False)


def _read_line() -> str | None:
    """One message, continued over lines that end with a backslash; None at the end of input."""
    try:
        line = input(">>> ")
        while line.endswith("\\"):
            line = line[:-1] + "\n" + input("... ")
    except EOFError:
        print()
        return None
    except KeyboardInterrupt:
        print()
        return ""
    except UnicodeDecodeError as error:
        err.print(f"error: what was typed is not {error.encoding}: check the terminal's encoding", style="bold red")
        return ""
    return line.strip()


def _obey(conversation: Conversation, line: str) -> bool:
    """Carry out one line; False to leave."""
    command, _, rest = line.partition(" ")
    if command in ("/exit", "/quit", "/bye"):
        return False
    if command == "/help":
        print(HELP)
    elif command == "/reset":
        conversation.begin(conversation.system)
    elif command == "/system":
        conversation.begin(rest.strip() or None)
    elif line.startswith("/"):
        print(f"unknown command {command}\n{HELP}")
    elif line:
        with suppress(KeyboardInterrupt):
            conversation.ask(line)
    return True
