"""One browser for all tests of the studio, a fresh profile and a fresh server for each."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from chromium import ARGUMENTS, find_chromium
from fake_server import FakeServer, FakeState, dense_model, moe_model


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium.path, args=ARGUMENTS, env=chromium.environment or None
        )
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """English, wide enough for all columns."""
    made = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 860}, accept_downloads=True)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """Errors of scripts, and what the content policy had to forbid, fail the test."""
    made = context.new_page()
    made.set_default_navigation_timeout(180_000)  # milliseconds: the first page of all, on a busy machine
    wrong: list[str] = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on(
        "console",
        lambda message: (
            wrong.append(message.text)
            if "Content Security Policy" in message.text or "Trusted" in message.text
            else None
        ),
    )
    yield made
    assert not wrong


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A model with experts and a dense one."""
    with FakeServer(FakeState([moe_model(), dense_model()])) as running:
        yield running
