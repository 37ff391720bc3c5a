"""The chat page in a real browser."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from fake_server import PLAIN, FakeServer


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Write a message").fill(text)
    page.keyboard.press("Enter")


def answers(page: Page) -> Locator:
    return page.locator(".message.assistant:not(.streaming)")


def bodies(server: FakeServer) -> list[Any]:
    return [body for path, body, _ in server.state.requests if path == "/v1/chat/completions"]


@pytest.fixture
def chat(page: Page, server: FakeServer) -> Page:
    page.goto(server.url)
    expect(page.get_by_role("heading", name="What shall we talk about?")).to_be_visible()
    return page


def test_an_answer_streams_in_and_is_formatted(chat: Page, server: FakeServer) -> None:
    ask(chat, "What is a mixture of experts?")
    answer = answers(chat)
    expect(answer.locator("strong").first).to_have_text("mixture-of-experts")
    expect(answer.locator("table tr")).to_have_count(3)
    expect(answer.locator("pre .hljs-keyword").first).to_have_text("def")
    figures = answer.locator(".figures")
    for part in ("tokens/s", "first after", "80% cached", "fake-moe"):
        expect(figures).to_contain_text(part)
    (body,) = bodies(server)
    assert body["stream_options"] == {"include_usage": True}
    assert body["logprobs"] is True
    assert "temperature" not in body  # left to the server's default


def test_thoughts_are_folded_away(chat: Page) -> None:
    ask(chat, "think")
    thoughts = answers(chat).locator("details.thinking")
    expect(thoughts.locator(".prose")).to_be_hidden()
    thoughts.locator("summary").click()
    expect(thoughts.locator(".prose")).to_contain_text("seven times six")
    expect(answers(chat).locator("strong")).to_have_text("42")


def test_what_the_controls_say_is_sent(chat: Page, server: FakeServer) -> None:
    chat.get_by_role("button", name="Settings", exact=True).click()
    for name, value in {
        "Temperature": "0.5",
        "Nucleus": "0.9",
        "Candidates": "20",
        "Least share": "0.1",
        "Longest answer": "77",
        "Seed": "5",
    }.items():
        chat.get_by_role("spinbutton", name=name).fill(value)
    chat.get_by_role("textbox", name="System prompt").fill("Be brief.")
    chat.get_by_role("textbox", name="Stop at").fill("END\n\\n\\n")
    chat.get_by_role("textbox", name="JSON schema").fill('{"type": "object"}')
    chat.get_by_role("complementary", name="Settings").get_by_role("combobox", name="Model").select_option("fake-dense")
    ask(chat, "hello")
    expect(answers(chat)).to_have_count(1)
    (body,) = bodies(server)
    wanted = {
        "model": "fake-dense",
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": 0.1,
        "max_tokens": 77,
        "seed": 5,
        "stop": ["END", "\n\n"],
    }
    assert {name: body[name] for name in wanted} == wanted
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_a_schema_that_is_none_is_named_and_not_sent(chat: Page, server: FakeServer) -> None:
    chat.get_by_role("button", name="Settings", exact=True).click()
    chat.get_by_role("textbox", name="JSON schema").fill("{nonsense")
    expect(chat.get_by_role("alert")).to_contain_text("not a JSON schema")
    ask(chat, "hello")
    expect(answers(chat)).to_have_count(1)
    assert "response_format" not in bodies(server)[0]


def test_editing_and_regenerating_make_branches(chat: Page, server: FakeServer) -> None:
    ask(chat, "first question")
    expect(answers(chat)).to_have_count(1)
    answers(chat).get_by_role("button", name="Answer again").click()
    branches = answers(chat).get_by_role("group", name="Branches")
    expect(branches).to_contain_text("2/2")
    branches.get_by_role("button", name="Previous").click()
    expect(branches).to_contain_text("1/2")

    question = chat.locator(".message.user")
    question.hover()
    question.get_by_role("button", name="Edit").click()
    chat.get_by_role("textbox", name="Edit").fill("second question")
    chat.get_by_role("button", name="Send as a new branch").click()
    expect(chat.locator(".said")).to_have_text("second question")
    expect(question.get_by_role("group", name="Branches")).to_contain_text("2/2")
    expect(answers(chat)).to_have_count(1)
    assert bodies(server)[-1]["messages"] == [{"role": "user", "content": "second question"}]
    chat.keyboard.press("Escape")
    question.get_by_role("button", name="Previous").click()
    expect(chat.locator(".said")).to_have_text("first question")
    expect(branches).to_contain_text("1/2")  # where the reader was


def test_an_answer_goes_on_where_it_ended(chat: Page, server: FakeServer) -> None:
    ask(chat, "long")
    expect(answers(chat).get_by_text("largest number of tokens")).to_be_visible()
    answers(chat).locator(".notice").get_by_role("button", name="Continue").click()
    expect(answers(chat).locator(".prose")).to_contain_text("and so it goes on.")
    body = bodies(server)[-1]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert body["messages"][-1]["role"] == "assistant"
    assert PLAIN.startswith(body["messages"][-1]["content"])


def test_stopping_keeps_what_came(chat: Page) -> None:
    ask(chat, "hold")
    expect(chat.locator(".message.assistant .prose")).to_contain_text("A")
    chat.get_by_role("button", name="Stop").click()
    expect(answers(chat).get_by_text("Stopped")).to_be_visible()
    expect(answers(chat).locator(".prose")).not_to_be_empty()


def test_probabilities_are_shown_for_the_token_under_the_pointer(chat: Page) -> None:
    ask(chat, "hello")
    answers(chat).get_by_role("button", name="Show tokens").click()
    token = chat.locator(".token").nth(2)
    token.hover()
    card = chat.get_by_role("tooltip")
    expect(card.locator("tr")).to_have_count(5)
    expect(card.locator("tr.chosen td").first).to_have_text(token.inner_text().strip())
    expect(card).to_contain_text("%")
    chat.mouse.move(5, 5)
    expect(card).to_be_hidden()
    chat.locator(".token").first.focus()
    chat.keyboard.press("ArrowRight")
    expect(chat.locator(".token").nth(1)).to_be_focused()
    expect(card).to_be_visible()


def test_the_inspector_shows_the_request_and_a_curl_line(chat: Page, server: FakeServer) -> None:
    ask(chat, "it's here")
    answers(chat).get_by_role("button", name="Request and response").click()
    dialog = chat.get_by_role("dialog")
    assert json.loads(dialog.locator("pre").inner_text()) == bodies(server)[0]
    dialog.get_by_role("tab", name="curl").click()
    line = dialog.locator("pre").inner_text()
    assert line.startswith(f"curl -N {server.url}v1/chat/completions")
    assert r"it'\''s here" in line
    dialog.get_by_role("tab", name="Stream").click()
    expect(dialog.locator("pre")).to_contain_text("data: {")


def test_two_settings_answer_side_by_side(chat: Page, server: FakeServer) -> None:
    chat.get_by_role("button", name="Compare two settings").click()
    chat.get_by_role("button", name="Settings", exact=True).click()
    panel = chat.get_by_role("complementary", name="Settings")
    panel.get_by_role("button", name="Side B").click()
    panel.get_by_role("combobox", name="Model").select_option("fake-dense")
    ask(chat, "think")
    expect(answers(chat)).to_have_count(2)
    assert sorted(body["model"] for body in bodies(server)) == ["fake-dense", "fake-moe"]
    chat.get_by_role("button", name="Keep this one").last.click()
    expect(answers(chat)).to_have_count(1)
    expect(answers(chat).locator(".figures")).to_contain_text("fake-dense")
    expect(answers(chat).get_by_role("group", name="Branches")).to_contain_text("2/2")


def test_conversations_outlive_the_page_and_travel_as_files(chat: Page, server: FakeServer, tmp_path: Path) -> None:
    ask(chat, "remember me")
    expect(answers(chat).locator(".figures")).to_contain_text("cached")
    entry = chat.get_by_role("navigation", name="Conversations").get_by_role("button", name="remember me", exact=True)
    expect(entry).to_be_visible()
    with chat.expect_download() as download:
        chat.get_by_role("button", name="Export").click()
    file = tmp_path / "conversations.json"
    download.value.save_as(file)
    chat.reload()
    expect(answers(chat).locator("strong").first).to_have_text("mixture-of-experts")

    chat.get_by_role("button", name="Delete: remember me").click()
    chat.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(entry).to_have_count(0)
    with chat.expect_file_chooser() as chooser:
        chat.get_by_role("button", name="Import").click()
    chooser.value.set_files(file)
    expect(entry).to_be_visible()
    expect(answers(chat).locator("strong").first).to_have_text("mixture-of-experts")


def exported(nodes: dict[str, Any], **more: Any) -> str:
    conversation = {"nodes": nodes, "roots": list(nodes), "panes": [{"leaf": next(iter(nodes), None)}], **more}
    return json.dumps({"format": "deepseek-studio", "version": 1, "conversations": [conversation]})


def import_file(chat: Page, file: Path, text: str) -> None:
    file.write_text(text)
    with chat.expect_file_chooser() as chooser:
        chat.get_by_role("button", name="Import").click()
    chooser.value.set_files(file)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"format": "other"}',
        '{"messages": [{"role": "tool", "content": "x"}]}',
        exported({"a": {"role": "user", "content": "x", "parent": "b"}}),
        exported({"a": {"role": "user", "content": "x", "parent": "a"}}),
        exported({"a": {"role": "user", "content": 7}}),
    ],
)
def test_a_file_that_is_no_export_is_refused(chat: Page, tmp_path: Path, text: str) -> None:
    import_file(chat, tmp_path / "x.json", text)
    expect(chat.get_by_role("status").filter(has_text="Not imported")).to_be_visible()
    expect(chat.get_by_text("No conversations yet")).to_be_visible()


def test_an_odd_export_breaks_nothing(chat: Page, tmp_path: Path) -> None:
    """What is known is taken over, the rest left out."""
    answer = {"role": "assistant", "content": "hi", "status": "refused", "tokens": [{"text": 5}], "timing": "never"}
    odd = {"a": {"role": "user", "content": "x", "parent": None, "children": ["b"]}, "b": {**answer, "parent": "a"}}
    import_file(chat, tmp_path / "x.json", exported(odd, panes=[{"leaf": "b"}, {"leaf": "constructor"}], title=5))
    expect(answers(chat).locator(".prose")).to_have_text("hi")
    ask(chat, "think")
    expect(answers(chat).locator("strong").first).to_have_text("42")


def test_a_refusal_names_the_field(chat: Page) -> None:
    ask(chat, "refuse")
    expect(chat.get_by_role("alert")).to_contain_text("temperature must be at most 2 (temperature)")
