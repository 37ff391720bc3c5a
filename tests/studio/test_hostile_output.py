"""Whatever the model writes is shown and never run, wherever the page shows it."""

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from fake_server import HOSTILE, FakeServer, FakeState, moe_model


def look(page: Page) -> None:
    """Nothing ran, nothing was loaded, the page is whole."""
    assert page.evaluate("window.hacked") is None
    assert page.locator(".message script, .message img, .message style, .message iframe, .message form").count() == 0
    assert page.locator("[onerror], [onload], [onfocus]").count() == 0
    assert page.locator("a[href^='javascript'], a[href^='data']").count() == 0
    expect(page.get_by_role("textbox", name="Write a message")).to_be_visible()


@pytest.fixture
def hostile(page: Page, server: FakeServer) -> Page:
    page.goto(server.url)
    page.get_by_role("textbox", name="Write a message").fill("hostile")
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant:not(.streaming) .figures")).to_be_visible()
    return page


def test_markup_is_shown_as_text(hostile: Page, server: FakeServer) -> None:
    look(hostile)
    prose = hostile.locator(".message.assistant .message-body > .prose")
    for text in (
        "<script>window.hacked = 1</script>",
        '<img src=x onerror="window.hacked = 2">',
        "<style>body",
        "<iframe",
        "<form",
    ):
        expect(prose).to_contain_text(text)
    expect(prose.get_by_role("link", name="safe")).to_have_attribute("rel", "noopener noreferrer nofollow")
    assert not [path for path, _, _ in server.state.requests if "stolen" in path]


def test_also_in_thoughts_tokens_and_the_inspector(hostile: Page) -> None:
    hostile.locator("details.thinking summary").click()
    look(hostile)
    hostile.get_by_role("button", name="Show tokens").click()
    hostile.locator(".token").nth(4).hover()
    look(hostile)
    hostile.mouse.move(5, 5)
    hostile.get_by_role("button", name="Request and response").click()
    for tab in ("curl", "Response", "Stream"):
        hostile.get_by_role("dialog").get_by_role("tab", name=tab).click()
        assert hostile.evaluate("window.hacked") is None


def test_also_in_the_names_of_models_and_conversations(page: Page) -> None:
    with FakeServer(FakeState([moe_model(HOSTILE)])) as server:
        page.goto(server.url)
        page.get_by_role("textbox", name="Write a message").fill(HOSTILE)
        page.keyboard.press("Enter")
        expect(page.locator(".message.assistant:not(.streaming) .figures")).to_be_visible()
        look(page)
        page.goto(f"{server.url}#/experts")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator(".expert-token").first).to_be_visible()
        assert page.evaluate("window.hacked") is None


def test_the_browser_would_refuse_what_slipped_through(context: BrowserContext, server: FakeServer) -> None:
    """The last line of defence: a string becomes neither markup nor code, whatever our own code did wrong."""
    page = context.new_page()
    page.goto(server.url)
    for slip in ("document.body.innerHTML = '<b>x</b>'", "document.body.setAttribute('onclick', 'window.hacked = 1')"):
        assert page.evaluate(f"() => {{ try {{ {slip}; return false }} catch {{ return true }} }}"), slip
