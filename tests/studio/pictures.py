"""Makes the README's pictures of the studio from running servers.

Run: python tests/studio/pictures.py CHAT_URL EXPERTS_URL [--runs RUN OTHER] [--font "Inter"] [--into docs/images]
CHAT_URL: `deepseek serve`; EXPERTS_URL: the same with a model that has experts; --runs: two training runs that CHAT_URL
shows (`--runs` there too). Takes about a minute.
"""

import argparse
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from chromium import ARGUMENTS, find_chromium

QUESTION = "Write a Python function that checks whether a string is a palindrome."
IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"
LONGEST_WAIT = 300_000  # milliseconds


def new_page(browser: Browser, url: str, height: int, font: str) -> Page:
    """At twice the pixels, so that text stays sharp."""
    page = browser.new_page(viewport={"width": 1280, "height": height}, device_scale_factor=2, locale="en-US")
    page.set_default_timeout(LONGEST_WAIT)
    page.goto(url)
    page.evaluate(
        "font => document.documentElement.style.setProperty('--sans', font)", f"{font}, system-ui, sans-serif"
    )
    return page


def chat(browser: Browser, url: str, font: str, path: Path) -> None:
    """A greedy answer, with the settings open."""
    page = new_page(browser, url, 800, font)
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_role("spinbutton", name="Temperature").fill("0")
    page.get_by_role("spinbutton", name="Longest answer").fill("240")
    page.get_by_role("textbox", name="Write a message").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant:not(.streaming) .figures")).to_contain_text("cached", timeout=LONGEST_WAIT)
    page.mouse.move(640, 5)  # off the buttons
    page.screenshot(path=path)


def experts(browser: Browser, url: str, font: str, path: Path) -> None:
    """While a text is being written: its newest token's experts are lit."""
    page = new_page(browser, f"{url.rstrip('/')}/#/experts", 1000, font)
    page.get_by_role("combobox", name="Longest answer").select_option("256")
    page.get_by_role("button", name="Generate").click()
    page.locator(".expert-token").nth(150).wait_for()
    page.screenshot(path=path)


def training(browser: Browser, url: str, font: str, path: Path, run: str, other: str) -> None:
    """One run beside another: figures, losses, loads."""
    page = new_page(browser, f"{url.rstrip('/')}/#/training", 1180, font)
    page.get_by_role("button", name=run, exact=True).click()
    page.get_by_role("combobox", name="Compare with another run").select_option(other)
    expect(page.locator("#loss")).to_contain_text(other, timeout=LONGEST_WAIT)
    page.locator("#loss").evaluate("panel => panel.scrollIntoView()")
    page.wait_for_timeout(1000)  # drawings come a fifth of a second after their data
    page.screenshot(path=path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chat_url")
    parser.add_argument("experts_url")
    parser.add_argument("--runs", nargs=2, metavar=("RUN", "OTHER"))
    parser.add_argument("--font", default="Inter", help="first choice for the page's texts, where it is installed")
    parser.add_argument("--into", type=Path, default=IMAGES)
    given = parser.parse_args()
    given.into.mkdir(parents=True, exist_ok=True)
    chromium = find_chromium()
    with sync_playwright() as playwright:
        environment = chromium.environment or None
        browser = playwright.chromium.launch(executable_path=chromium.path, args=ARGUMENTS, env=environment)
        chat(browser, given.chat_url, given.font, given.into / "studio-chat.png")
        experts(browser, given.experts_url, given.font, given.into / "studio-experts.png")
        if given.runs:
            training(browser, given.chat_url, given.font, given.into / "studio-training.png", *given.runs)
        browser.close()


if __name__ == "__main__":
    main()
