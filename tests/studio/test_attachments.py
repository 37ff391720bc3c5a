"""Text files that go with a message: picked, shown, sent, kept, refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from fake_server import FakeServer


def sent(server: FakeServer) -> list[Any]:
    return [body for path, body, _ in server.state.requests if path == "/v1/chat/completions"]


def pick(page: Page, *files: dict[str, Any]) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Attach text files, up to 200 kB each").click()
    chooser.value.set_files([{"mimeType": "text/plain", **file} for file in files])


@pytest.fixture
def chat(page: Page, server: FakeServer) -> Page:
    page.goto(server.url)
    return page


def test_a_file_goes_with_the_message(chat: Page, server: FakeServer, tmp_path: Path) -> None:
    text = "naïve ```code``` <b>text</b>\n"
    pick(chat, {"name": "notes.md", "buffer": text.encode()}, {"name": "b.txt", "buffer": b"second"})
    chips = chat.locator(".composer .chip")
    expect(chips).to_have_count(2)
    expect(chips.first).to_contain_text("notes.md")
    expect(chips.first).to_contain_text(f"{len(text)} characters")
    chat.get_by_role("button", name="Take b.txt away").click()
    expect(chips).to_have_count(1)
    expect(chat.get_by_role("textbox", name="Write a message")).to_be_focused()
    chat.keyboard.type("What is this?")
    chat.keyboard.press("Enter")
    expect(chat.locator(".message.user .chip")).to_contain_text("notes.md")
    expect(chat.locator(".message.user .said")).to_have_text("What is this?")
    expect(chat.locator(".composer .chip")).to_have_count(0)
    expect(chat.locator(".message.assistant:not(.streaming) .figures")).to_be_visible()
    (body,) = sent(server)
    assert body["messages"][-1]["content"] == f"notes.md:\n````\n{text}````\n\nWhat is this?"
    with chat.expect_download() as download:
        chat.get_by_role("button", name="Export").click()
    download.value.save_as(tmp_path / "kept.json")
    (told,) = json.loads((tmp_path / "kept.json").read_text())["conversations"]
    assert [node["files"] for node in told["nodes"].values() if node["role"] == "user"] == [
        [{"name": "notes.md", "text": text}]
    ]
    chat.reload()
    expect(chat.locator(".message.user .chip")).to_contain_text("notes.md")


def test_files_alone_are_a_message_and_a_key_picks_them(chat: Page, server: FakeServer) -> None:
    # Interception of file choosers takes a moment to begin, and expect_file_chooser does not wait for it.
    chat.on("filechooser", lambda _: None)
    chat.evaluate("new Promise(done => setTimeout(done, 200))")
    field = chat.get_by_role("textbox", name="Write a message")
    expect(field).to_be_focused()
    field.blur()
    expect(field).not_to_be_focused()
    with chat.expect_file_chooser() as chooser:
        chat.keyboard.press("a")
    chooser.value.set_files([{"name": "a.py", "mimeType": "text/x-python", "buffer": b"print(1)"}])
    expect(chat.locator(".composer .chip")).to_have_count(1)
    chat.get_by_role("button", name="Send").click()
    expect(chat.locator(".message.assistant:not(.streaming) .figures")).to_be_visible()
    (body,) = sent(server)
    assert body["messages"][-1]["content"] == "a.py:\n```\nprint(1)\n```"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("big.txt", b"a" * 200_001, "big.txt is larger than 200 kB"),
        ("image.png", b"\x89PNG\r\n\xff\xfe", "image.png is no text"),
        ("nul.txt", b"a\0b", "nul.txt is no text"),
    ],
)
def test_what_cannot_go_along_is_refused(chat: Page, name: str, content: bytes, said: str) -> None:
    pick(chat, {"name": name, "buffer": content})
    expect(chat.locator(".toast")).to_have_text(said)
    expect(chat.locator(".composer .chip")).to_have_count(0)


def test_names_and_texts_are_only_shown(chat: Page) -> None:
    pick(chat, {"name": "<img src=x onerror=window.hacked=1>.txt", "buffer": b"<script>window.hacked=2</script>"})
    chat.get_by_role("button", name="Send").click()
    expect(chat.locator(".message.user .chip")).to_contain_text("<img src=x onerror=window.hacked=1>.txt")
    assert chat.evaluate("window.hacked") is None


def test_in_chinese(chat: Page) -> None:
    chat.get_by_role("button", name="切换到中文").click()
    expect(chat.get_by_role("button", name="附加文本文件，每个不超过 200 kB")).to_be_visible()
