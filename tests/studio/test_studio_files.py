"""The studio's files: all there, only those, in both languages, with the headers that keep the page safe."""

import re
from pathlib import Path

import pytest

from deepseek.server.studio import files
from deepseek.server.studio.files import studio_file

FOLDER = Path(files.__file__).parent
OURS = [
    path for path in sorted(FOLDER.rglob("*")) if path.suffix in (".js", ".css", ".html") and "vendor" not in path.parts
]


def keys(language: str) -> list[str]:
    text = (FOLDER / "js" / "strings" / f"{language}.js").read_text()
    return re.findall(r'(?:^  |, )"([\w.]+)": "', text, re.MULTILINE)


def test_the_page_is_served_with_a_strict_policy() -> None:
    page = studio_file("index.html")
    assert page is not None
    assert page.media_type == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    "name", ["", "../service.py", "files.py", "/etc/passwd", "js", "js/../index.html", "vendor/README.md", "INDEX.HTML"]
)
def test_nothing_else_is_served(name: str) -> None:
    assert studio_file(name) is None


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_file_is_served_and_small_and_needs_no_inline_code(path: Path) -> None:
    served = studio_file(path.relative_to(FOLDER).as_posix())
    assert served is not None
    assert served.body == path.read_bytes()
    text = path.read_text()
    assert text.count("\n") < 300
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    if path.suffix == ".html":
        assert not re.search(r"<style|\son\w+=|\sstyle=|<script(?![^>]*src=)|(?:src|href)=\"/", text)
    for imported in re.findall(r'(?:from|import) "(\.[^"]+)"', text):
        assert (path.parent / imported).is_file(), imported


def test_both_languages_say_the_same_things() -> None:
    english, chinese = keys("en"), keys("zh")
    assert len(english) > 150
    assert english == chinese
    assert len(set(english)) == len(english)
    for language in ("en", "zh"):
        other = (FOLDER / "js" / "strings" / f"{language}.js").read_text()
        assert other.count('": "') == len(english), "a line that this test cannot read"


def test_every_text_is_there_and_used() -> None:
    code = "\n".join(path.read_text() for path in OURS if path.suffix == ".js" and path.parent.name != "strings")
    named = set(re.findall(r'\bt\(\s*"([\w.]+)"', code)) | set(
        re.findall(r'"((?:card|balance|key|page|role)\.[\w.]+)"', code)
    )
    assert named <= set(keys("en"))
    patterns = [
        re.sub(r"\\\$\\\{[^}]*\\\}", r"[\\w.]+", re.escape(text))
        for text in re.findall(r"`([\w.]+\.\$\{[^`{}]+\}[\w.]*)`", code)
    ]
    loose = [
        key
        for key in keys("en")
        if f'"{key}"' not in code and not any(re.fullmatch(pattern, key) for pattern in patterns)
    ]
    assert loose == []


def test_what_is_vendored_has_its_licence() -> None:
    for folder in (path for path in (FOLDER / "vendor").iterdir() if path.is_dir()):
        assert (folder / "LICENSE.txt").read_text()
        assert f"`{folder.name}/`" in (FOLDER / "vendor" / "README.md").read_text()
