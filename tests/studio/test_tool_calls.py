"""Calls of tools as cards, their results from the reader; and how long a model may think."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from fake_server import FakeServer

TOOLS = '[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]'


def sent(server: FakeServer) -> list[Any]:
    return [body for path, body, _ in server.state.requests if path == "/v1/chat/completions"]


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Write a message").fill(text)
    page.keyboard.press("Enter")


@pytest.fixture
def chat(page: Page, server: FakeServer) -> Page:
    page.goto(server.url)
    page.get_by_role("button", name="Settings", exact=True).click()
    return page


def test_a_call_is_a_card_and_its_result_goes_back(chat: Page, server: FakeServer) -> None:
    chat.get_by_role("textbox", name="Tools").fill(TOOLS)
    ask(chat, "tools")
    cards = chat.get_by_role("region", name="Call of weather")
    expect(cards).to_have_count(2)
    expect(cards.first.locator(".call-arguments")).to_have_text(
        '{\n  "city": "paris",\n  "days": [\n    1,\n    2\n  ]\n}'
    )
    expect(cards.first).to_contain_text("waits for its result")
    assert [tool["function"]["name"] for tool in sent(server)[0]["tools"]] == ["weather"]
    cards.first.get_by_role("textbox", name="Result of weather").fill('{"sky": "<b>blue</b>"}')
    cards.first.get_by_role("button", name="Give the result").click()
    expect(cards.first).to_contain_text("answered")
    result = cards.first.locator("details pre")
    expect(result).to_be_hidden()
    cards.first.get_by_text("Result", exact=True).click()
    expect(result).to_have_text('{\n  "sky": "<b>blue</b>"\n}')
    assert len(sent(server)) == 1  # the other call has none yet
    second = cards.nth(1).get_by_role("textbox", name="Result of weather")
    second.fill("rain")
    second.press("Control+Enter")
    expect(chat.locator(".message.assistant:not(.streaming) strong").first).to_be_visible()
    said = sent(server)[1]["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "tool", "tool"]
    assert [call["id"] for call in said[1]["tool_calls"]] == ["call-paris", "call-rome"]
    assert said[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "paris", "days": [1, 2]}'}
    assert [message["content"] for message in said[2:]] == ['{"sky": "<b>blue</b>"}', "rain"]
    assert said[3]["tool_call_id"] == "call-rome"
    chat.wait_for_timeout(0)
    chat.reload()
    expect(chat.get_by_role("region", name="Call of weather")).to_have_count(2)


def test_tools_that_are_none_are_named_and_not_sent(chat: Page, server: FakeServer) -> None:
    for text in ("[", "{}", '[{"name": "f"}]'):
        chat.get_by_role("textbox", name="Tools").fill(text)
        expect(chat.get_by_text("Not sent, not a list of tools:")).to_be_visible()
    ask(chat, "hello")
    expect(chat.locator(".message.assistant:not(.streaming) .figures")).to_be_visible()
    assert "tools" not in sent(server)[0]


def test_how_long_a_model_may_think(chat: Page, server: FakeServer) -> None:
    box = chat.get_by_role("spinbutton", name="Longest thinking")
    box.fill("10000")  # more than the slider shows
    ask(chat, "think")
    expect(chat.locator(".message.assistant:not(.streaming) .figures")).to_be_visible()
    box.fill("0")
    chat.get_by_role("button", name="Answer again").click()
    expect(chat.get_by_text("2/2")).to_be_visible()
    box.fill("")
    chat.get_by_role("button", name="Answer again").click()
    expect(chat.get_by_text("3/3")).to_be_visible()
    assert [body.get("thinking_budget") for body in sent(server)] == [10_000, 0, None]
