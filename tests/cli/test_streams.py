"""The command among its surroundings: full disks, readers that leave, other encodings, Ctrl-C, no home."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepseek.cli import console, streams
from deepseek.errors import GenerationError
from deepseek.hub.cache import StorageError, cache_folder, temporary_folder

DEEPSEEK = [sys.executable, "-m", "deepseek"]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Runs `line` in bash, where $D is the command."""
    given = os.environ | {"D": " ".join(DEEPSEEK)} | environment
    return subprocess.run(["bash", "-o", "pipefail", "-c", line], env=given, capture_output=True, timeout=120)


@pytest.mark.parametrize("line", ["$D models > /dev/full", "$D models --json > /dev/full", "$D --help > /dev/full"])
def test_a_full_disk_is_one_line(line: str) -> None:
    done = shell(line)
    assert (done.returncode, done.stderr) == (1, b"error: no space left on the device (standard output)\n")


@pytest.mark.parametrize("line", ["$D models | head -1", "$D --help | head -1", "$D models >&-", "$D models 2>&-"])
def test_a_reader_that_leaves_is_no_error(line: str) -> None:
    done = shell(line, PYTHONUNBUFFERED="1")
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


def test_what_the_encoding_lacks_is_escaped() -> None:
    done = shell("$D info smollm2-135m-\N{GRINNING FACE} || $D perplexity --help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert b"\\U0001f600" in done.stderr
    assert b"UnicodeEncodeError" not in done.stderr


def test_json_is_ascii_where_the_output_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"text": "é"})
    monkeypatch.setattr(console, "speaks_unicode", lambda: False)
    console.print_json({"text": "é"}, indent=None)
    assert capsys.readouterr().out == '{\n  "text": "é"\n}\n{"text": "\\u00e9"}\n'


def test_text_that_is_not_utf8_is_named() -> None:
    with pytest.raises(GenerationError, match="--prompt is not UTF-8: byte 3 is 0xe9"):
        streams.argument_text(os.fsdecode(b"caf\xe9"), "--prompt")
    assert streams.argument_text("café", "--prompt") == "café"
    done = shell("printf 'caf\\xe9 au lait' | $D generate")
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: standard input is not UTF-8: byte 3 is 0xe9")


def test_a_byte_order_mark_is_no_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_bytes(b"\xef\xbb\xbfhello")
    with (tmp_path / "prompt").open(encoding="latin-1") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert streams.read_stdin() == "hello"


INTERRUPTED_AT = """
import os, signal, sys
from deepseek.cli import main
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
sys.argv[1:] = {words!r}
main()
"""


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("deepseek.cli.app", ["chat"]),
        ("rich.console", ["chat"]),
        ("deepseek.engine.engine", ["generate", "-p", "hi"]),
        ("deepseek.profiler.measurement", ["bench"]),
    ],
)
def test_ctrl_c_is_never_a_traceback(module: str, words: list[str]) -> None:
    """Also where it comes while modules are imported, before and within a verb."""
    code = INTERRUPTED_AT.format(module=module, words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"interrupted\n")


def test_ctrl_c_keeps_the_answer_so_far_and_says_so() -> None:
    words = ["chat", "smollm2", "-p", "Tell me a long story about the sea.", "--max-tokens", "2000"]
    process = subprocess.Popen([*DEEPSEEK, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert first.strip()
    assert out.endswith(b"\n")
    assert err.endswith(b"interrupted\n")
    assert b"Traceback" not in err


def test_without_a_home_the_cache_is_a_private_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_home(path: Path) -> Path:
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("DEEPSEEK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = cache_folder()
    assert folder.parent == tmp_path
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache_folder() == folder
    monkeypatch.setenv("DEEPSEEK_CACHE", "~/cache")
    with pytest.raises(StorageError, match="set DEEPSEEK_CACHE to an absolute path"):
        cache_folder()


def test_a_temporary_folder_of_somebody_else_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / f"one-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"one-{os.getuid()}").chmod(0o777)
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / f"two-{os.getuid()}").symlink_to(tmp_path / "real")
    for name in ("one", "two"):
        with pytest.raises(StorageError, match="open to other users: set DEEPSEEK_CACHE"):
            temporary_folder(name)
