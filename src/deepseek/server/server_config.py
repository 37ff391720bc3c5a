"""The server's settings: each with its default, its help and its names, once. The command line is made from them.

A value comes from the command line, else from the environment (`DEEPSEEK_MAX_NUM_SEQS=8`), else from the file of
`--config`, else it is the default.
"""

# ruff: noqa: RUF009  (`_setting` makes a dataclass field)
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from deepseek.checkpoint.packed.choose import Quantize
from deepseek.engine.engine_config import CacheDtype, EngineConfig, Speculation, SpeculativeMethod
from deepseek.errors import ConfigError
from deepseek.number_types import choice_of

ENVIRONMENT_PREFIX = "DEEPSEEK_"
MODEL, ENGINE, BATCHING, CHAT, HTTP = "Model", "Engine", "Batching and cache", "Chat", "HTTP"
ACCESS, LIMITS, STORE, LOGS = (
    "Keys and access",
    "Limits",
    "Responses, files and batches that are kept",
    "Logs and traces",
)
"""Panels of the help, in the order of the first setting of each."""
AccessLog = Literal["auto", "json", "off"]
LogLevel = Literal["debug", "warning"]
CacheType = Literal["f16", "q8_0"]
_CACHE_DTYPES: dict[str, CacheDtype] = {"f16": "f16", "q8_0": "int8"}
GenerationConfig = Literal["auto", "off"]
_ENGINE_DEFAULTS = {each.name: each.default for each in fields(EngineConfig)}
_MOST_FILE_BYTES = 1 << 20


def _setting(default: Any, panel: str, help: str, *also: str, takes: str | None = None) -> Any:
    """also: further spellings on the command line, such as llama.cpp's. takes: what the help calls the value."""
    return field(default=default, metadata={"panel": panel, "help": help, "also": also, "takes": takes})


def _secret(default: Any, panel: str, help: str, *, takes: str) -> Any:
    """A setting that is never printed."""
    return field(default=default, repr=False, metadata={"panel": panel, "help": help, "also": (), "takes": takes})


def _engine(name: str, panel: str, help: str, *also: str, takes: str | None = None) -> Any:
    """A setting that is EngineConfig's, default included."""
    metadata = {"panel": panel, "help": help, "also": also, "takes": takes, "engine": True}
    return field(default=_ENGINE_DEFAULTS[name], metadata=metadata)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """How a server runs. Raises ConfigError naming the setting."""

    model: str | None = _setting(None, MODEL, "Folder, .gguf file or name, as MODEL.", "--model-path", takes="MODEL")
    revision: str | None = _setting(None, MODEL, "Branch, tag or commit of a hub repository.", takes="NAME")
    served_model_name: tuple[str, ...] = _setting(
        (), MODEL, "Name in the API instead of the model's own; several times for several names.", takes="NAME"
    )

    allow_unknown_keys: bool = _engine(
        "allow_unknown_keys", MODEL, "Load the model although its files ask for what this version does not compute."
    )

    quantize: Quantize = _engine("quantize", ENGINE, "Precision of weights: floats become int8, in large models int4.")
    threads: int | None = _engine("threads", ENGINE, "Threads that compute; without it one a processor.", "-t")
    activation_bits: int | None = _engine(
        "activation_bits", ENGINE, "8 is faster, 16 more exact; by default by the model's size.", takes="8|16"
    )
    speculation: Speculation = _engine("speculation", ENGINE, "Guess tokens: where it pays, always, or never.")
    speculative_method: SpeculativeMethod = _engine(
        "speculative_method", ENGINE, "Who guesses: auto takes what the model has."
    )
    record_routing: bool = _setting(True, ENGINE, "Count which experts are used, for metrics and the studio.")

    max_model_len: int | None = _engine(
        "max_model_len", BATCHING, "Tokens of prompt and answer together; by default what the model takes.",
        "-c", "--ctx-size",
    )  # fmt: skip
    max_num_seqs: int = _engine("max_num_seqs", BATCHING, "Answers that are generated together.", "-np", "--parallel")
    max_num_batched_tokens: int = _engine("max_num_batched_tokens", BATCHING, "Tokens computed in one step.", "-b")
    max_queue: int = _engine("max_queue", BATCHING, "Requests that may wait; more get 429.")
    kv_cache_bytes: int | None = _engine(
        "kv_cache_bytes", BATCHING, "Memory for keys and values; by default by free memory.", takes="BYTES"
    )
    kv_cache_dtype: CacheDtype = _engine("kv_cache_dtype", BATCHING, "Type of keys and values.")
    cache_type_k: CacheType | None = _setting(
        None, BATCHING, "llama.cpp's name for the type of keys, f16 unless given; must be that of values.", "-ctk"
    )
    cache_type_v: CacheType | None = _setting(
        None, BATCHING, "The same of values. q8_0 has 8 bits a number with factors, as --kv-cache-dtype int8.", "-ctv"
    )
    enable_prefix_caching: bool = _engine(
        "enable_prefix_caching", BATCHING, "Find keys and values of earlier prompts again."
    )

    chat_template: str | None = _setting(
        None, CHAT, "A file with a chat template, used instead of the model's own.", takes="FILE"
    )
    generation_config: GenerationConfig = _setting(
        "auto",
        CHAT,
        "Sampling where a request says nothing: auto takes what the model's makers recommend (from its files or "
        "the catalog), off temperature 1 without limits.",
    )
    reasoning_parser: str | None = _setting(
        None, CHAT, "How to find reasoning in answers; none: do not look.", takes="NAME"
    )
    tool_call_parser: str | None = _setting(
        None, CHAT, "How to find tool calls in answers; none: do not look.", takes="NAME"
    )

    host: str = _setting("127.0.0.1", HTTP, "Address to listen on; 0.0.0.0 for all of this machine.", takes="ADDRESS")
    port: int = _setting(8000, HTTP, "Port to listen on; 0 takes a free one.")
    strict: bool = _setting(
        False, HTTP, "Refuse request fields that nobody knows, for those who write clients; else they are ignored."
    )
    root_path: str = _setting("", HTTP, "Path under which a proxy serves this.", takes="PATH")
    ssl_keyfile: str | None = _setting(None, HTTP, "Private key in PEM; with it the server speaks HTTPS.", takes="FILE")
    ssl_certfile: str | None = _setting(None, HTTP, "Certificate in PEM.", takes="FILE")
    studio: bool = _setting(True, HTTP, "Serve the web page at /.")
    runs: str | None = _setting(
        None, HTTP, "Folder of training runs that the page shows; by default runs in the current folder.",
        takes="FOLDER",
    )  # fmt: skip

    api_key: tuple[str, ...] = _secret(
        (), ACCESS, "Key that clients must give; several times for several keys.", takes="KEY"
    )
    api_key_file: str | None = _setting(
        None, ACCESS, "YAML file of keys with names, quotas and rate limits.", takes="FILE"
    )
    allowed_hosts: tuple[str, ...] = _setting(
        (), ACCESS, "Further names in the Host header, such as *.example.com; * for any.", takes="NAME"
    )
    allowed_origins: tuple[str, ...] = _setting(
        (), ACCESS, "Other web pages that may use the API; * for any.", takes="ORIGIN"
    )

    max_body_bytes: int = _setting(16 << 20, LIMITS, "Length of a request's body.")
    body_seconds: float = _setting(30.0, LIMITS, "Time that a client has to send headers, and again the body.")
    request_seconds: float = _setting(3600.0, LIMITS, "Time from a request to the end of its answer.")
    keep_alive_seconds: float = _setting(10.0, LIMITS, "A silent stream gets a comment so often.")
    shutdown_timeout: float = _setting(
        30.0, LIMITS, "On SIGTERM, running answers have so many seconds to end.", takes="SECONDS"
    )

    response_store: str | None = _setting(
        None,
        STORE,
        "SQLite file that keeps responses of /v1/responses; without it they are kept in memory.",
        takes="FILE",
    )
    response_store_bytes: int = _setting(
        256 << 20, STORE, "Length of all responses kept for an API key; the oldest are forgotten."
    )
    data_dir: str | None = _setting(
        None, STORE, "Folder for files and batches; by default one in the state folder.", takes="FOLDER"
    )
    max_file_bytes: int = _setting(200 << 20, STORE, "Length of a file.")
    max_stored_bytes: int = _setting(4 << 30, STORE, "Length of all files of an API key together.")
    max_batch_lines: int = _setting(50_000, STORE, "Requests in a batch.")

    access_log: AccessLog = _setting(
        "auto", LOGS, "JSON on stderr, one line per request; auto: where stderr is not a terminal."
    )

    log_level: LogLevel = _setting(
        "warning", LOGS, "Messages on stderr; debug: also which fields of each request were ignored."
    )

    otlp_traces_endpoint: str | None = _setting(
        None, LOGS, "Where OpenTelemetry traces go, such as http://localhost:4318/v1/traces; extra: telemetry.",
        takes="URL",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for each in fields(self):
            kind = SETTING_TYPES[each.name]
            if get_origin(bare := _bare(kind)) is Literal:
                object.__setattr__(self, each.name, choice_of(getattr(self, each.name), get_args(bare)))
            _check_type(each.name, getattr(self, each.name), kind)
        EngineConfig.of(self.engine_settings())
        _require(0 <= self.port <= 65535, "port", "from 0 to 65535", self.port)
        for name in (
            "max_body_bytes", "max_file_bytes", "max_stored_bytes", "max_batch_lines", "response_store_bytes",
        ):  # fmt: skip
            _require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        for name in ("body_seconds", "request_seconds", "keep_alive_seconds"):
            _require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        _require(self.shutdown_timeout >= 0, "shutdown_timeout", "0 or above", self.shutdown_timeout)
        _require(
            not self.root_path or (self.root_path.startswith("/") and not self.root_path.endswith("/")),
            "root_path", "empty or a path such as /models", self.root_path,
        )  # fmt: skip
        if (self.ssl_keyfile is None) != (self.ssl_certfile is None):
            raise ConfigError("ssl_keyfile and ssl_certfile go together: give both or neither")
        for name in ("ssl_keyfile", "ssl_certfile", "chat_template", "api_key_file"):
            path = getattr(self, name)
            _require(path is None or Path(path).is_file(), name, "a file", path)
        _require(
            self.runs is None or Path(self.runs).is_dir(), "runs",
            "a folder that exists, such as the runs that `deepseek train` makes", self.runs,
        )  # fmt: skip
        _require(
            self.otlp_traces_endpoint is None or self.otlp_traces_endpoint.startswith(("http://", "https://")),
            "otlp_traces_endpoint", "an address such as http://localhost:4318/v1/traces", self.otlp_traces_endpoint,
        )  # fmt: skip
        _require(all(self.api_key), "api_key", "a text of at least one character", "")
        _require(all(self.served_model_name), "served_model_name", "a text of at least one character", "")

    def engine_settings(self) -> dict[str, Any]:
        """Those of EngineConfig, by name."""
        own = {name: getattr(self, name) for name in (*ENGINE_FIELDS, "record_routing")}
        return {**own, "kv_cache_dtype": self._cache_dtype()}

    def _cache_dtype(self) -> CacheDtype:
        """Of keys and values alike, however it was named. Raises ConfigError for names that do not agree."""
        if self.cache_type_k is None and self.cache_type_v is None:
            return self.kv_cache_dtype
        keys, values = self.cache_type_k or "f16", self.cache_type_v or "f16"
        if keys != values:
            raise ConfigError(
                f"cache_type_k is {keys} and cache_type_v is {values}, but keys and values have one type here: "
                "give both the same, or --kv-cache-dtype alone"
            )
        dtype = _CACHE_DTYPES[keys]
        if self.kv_cache_dtype not in ("auto", dtype):
            raise ConfigError(
                f"kv_cache_dtype is {self.kv_cache_dtype}, cache_type_k and cache_type_v are {keys}: give one kind"
            )
        return dtype

    @classmethod
    def of(
        cls,
        given: Mapping[str, Any] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        file: str | Path | None = None,
    ) -> Self:
        """given, by field name, beats environment (None: this process's), which beats the YAML file."""
        values: dict[str, Any] = _from_file(Path(file)) if file is not None else {}
        values |= _from_environment(os.environ if environment is None else environment)
        values |= given or {}
        _refuse_unknown(values, "setting")
        return cls(**{name: _settled(name, value) for name, value in values.items()})


def _refuse_unknown(names: Mapping[str, Any], what: str) -> None:
    known = [each.name for each in fields(ServerConfig)]
    if unknown := sorted(str(name) for name in names.keys() - set(known)):
        raise ConfigError(f"unknown {what} {unknown[0]!r}; known are {', '.join(known)}")


def _from_file(path: Path) -> dict[str, Any]:
    import yaml

    try:
        with path.open("rb") as file:
            text = file.read(_MOST_FILE_BYTES)
        values = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}): give --config another file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(values, dict | None):
        raise ConfigError(f"{path}: must hold settings by name, such as `port: 8000`")
    named = {str(name).replace("-", "_"): value for name, value in (values or {}).items()}
    _refuse_unknown(named, f"setting in {path}:")
    return named


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """DEEPSEEK_<NAME>; lists with commas; on, true, yes and 1 or off, false, no and 0 for switches."""
    values = {}
    for each in fields(ServerConfig):
        variable = ENVIRONMENT_PREFIX + each.name.upper()
        if (text := environment.get(variable)) is not None:
            values[each.name] = _parsed(text, SETTING_TYPES[each.name], variable)
    return values


def _parsed(text: str, kind: Any, variable: str) -> Any:
    bare = _bare(kind)
    try:
        if bare is bool:
            return {"1": True, "on": True, "true": True, "yes": True,
                    "0": False, "off": False, "false": False, "no": False}[text.lower()]  # fmt: skip
        if bare in (int, float):
            return bare(text)
        if get_origin(bare) is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
    except (KeyError, ValueError):
        raise ConfigError(f"{variable} must be {_meaning(kind)}, not {text!r:.100}") from None
    return text


def _settled(name: str, value: Any) -> Any:
    """Lists as tuples, a single text where a list may stand, whole numbers where fractions may."""
    bare = _bare(SETTING_TYPES[name])
    if get_origin(bare) is tuple and isinstance(value, str | list):
        return (value,) if isinstance(value, str) else tuple(value)
    if bare is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _bare(kind: Any) -> Any:
    """The type without `| None`."""
    if get_origin(kind) is Literal or get_origin(kind) is tuple:
        return kind
    return next((option for option in get_args(kind) if option is not type(None)), kind)


def _check_type(name: str, value: Any, kind: Any) -> None:
    bare = _bare(kind)
    if value is None:
        fits = type(None) in get_args(kind)
    elif get_origin(bare) is Literal:
        fits = value in get_args(bare)
    elif get_origin(bare) is tuple:
        fits = isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    else:
        fits = isinstance(value, bare) and (bare is bool or not isinstance(value, bool))
    _require(fits, name, _meaning(kind), value)


def _meaning(kind: Any) -> str:
    bare = _bare(kind)
    if get_origin(bare) is Literal:
        return f"one of {', '.join(map(str, get_args(bare)))}"
    if get_origin(bare) is tuple:
        return "a text or a list of texts"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[bare]


def _require(holds: bool, name: str, meaning: str, value: object) -> None:
    if not holds:
        shown = "something else" if name == "api_key" else repr(value)
        raise ConfigError(f"{name} must be {meaning}, not {shown:.200}")


SETTING_TYPES: dict[str, Any] = get_type_hints(ServerConfig)
ENGINE_FIELDS = tuple(each.name for each in fields(ServerConfig) if each.metadata.get("engine"))
assert all(each.default is not MISSING for each in fields(ServerConfig))
