"""What all pages share: languages, themes, keys, small screens, the server's figures."""

import pytest
from playwright.sync_api import Browser, Page, expect

from fake_server import FakeServer

PAGES = ["chat", "experts", "server", "training"]


def test_languages(page: Page, server: FakeServer) -> None:
    page.goto(server.url)
    page.get_by_role("button", name="切换到中文").click()
    expect(page.get_by_role("heading", name="想聊点什么？")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.reload()
    expect(page.get_by_role("heading", name="想聊点什么？")).to_be_visible()


def test_a_chinese_browser_is_greeted_in_chinese(browser: Browser, server: FakeServer) -> None:
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(server.url)
    expect(page.get_by_role("heading", name="想聊点什么？")).to_be_visible()
    context.close()


def test_themes(page: Page, server: FakeServer) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="dark")
    page.goto(server.url)
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    assert dark != light
    page.get_by_role("button", name="Theme").click()  # from the system's to light
    page.get_by_role("button", name="Theme").click()
    assert page.evaluate(background) == dark
    page.reload()
    assert page.evaluate(background) == dark


def test_keys(page: Page, server: FakeServer) -> None:
    page.goto(server.url)
    field = page.get_by_role("textbox", name="Write a message")
    expect(field).to_be_focused()
    page.keyboard.type("?")
    expect(field).to_have_value("?")  # writing is writing
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    expect(page.get_by_role("heading", name="Server", exact=True)).to_be_visible()
    page.keyboard.press("4")
    expect(page.get_by_role("heading", name="Training", exact=True)).to_be_visible()
    page.keyboard.press("1")
    page.keyboard.press("/")
    expect(field).to_be_focused()


def test_enter_belongs_to_an_open_input_method(page: Page, server: FakeServer) -> None:
    page.goto(server.url)
    field = page.get_by_role("textbox", name="Write a message")
    field.fill("nihao")
    field.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    expect(page.locator(".message")).to_have_count(0)
    field.press("Enter")
    expect(page.locator(".message")).to_have_count(2)


@pytest.mark.parametrize("name", PAGES)
def test_fits_a_small_screen(page: Page, server: FakeServer, name: str) -> None:
    page.set_viewport_size({"width": 380, "height": 740})
    page.goto(f"{server.url}#/{name}")
    expect(page.get_by_role("main")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    wide = page.locator("main").evaluate("(main) => main.scrollWidth - main.clientWidth")
    assert wide <= 0


@pytest.mark.parametrize("name", PAGES)
def test_every_control_has_a_name(page: Page, server: FakeServer, name: str) -> None:
    page.goto(f"{server.url}#/{name}")
    expect(page.get_by_role("main")).to_be_visible()
    nameless = page.locator("button, a, input, select, textarea, canvas, [role=img]").evaluate_all(
        """(all) => all.filter((one) => one.checkVisibility() && one.getAttribute("aria-hidden") !== "true"
             && !(one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.length))
           .map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_the_servers_figures(page: Page, server: FakeServer) -> None:
    page.goto(f"{server.url}#/server")
    expect(page.locator(".card", has_text="Running")).to_contain_text("3 / 64")
    expect(page.locator(".card", has_text="KV cache in use")).to_contain_text("23%")
    expect(page.locator("#time_to_first_token_seconds")).to_contain_text("half under 85 ms")
    expect(page.locator("#server-experts")).to_contain_text("least even: layer")
    server.state.generated += 500
    expect(page.locator(".card", has_text="Writing").locator(".value")).not_to_have_text("0 tokens/s")
