"""TeX in answers: set where it is one, shown as it was written where not, loaded only when there is any, never run."""

from playwright.sync_api import Locator, Page, expect

from fake_server import FakeServer


def ask(page: Page, server: FakeServer, text: str) -> Locator:
    page.goto(server.url)
    page.get_by_role("textbox", name="Write a message").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator(".message.assistant:not(.streaming) .figures")).to_be_visible()
    return page.locator(".message.assistant .prose")


def fetched(server: FakeServer, part: str) -> list[str]:
    return [path for path, _, _ in server.state.requests if part in path]


def test_formulas_are_set(page: Page, server: FakeServer) -> None:
    prose = ask(page, server, "formulas")
    expect(prose.locator(".katex")).to_have_count(4)
    expect(prose.locator(".tex-block .katex-display")).to_have_count(2)
    expect(prose.locator(".tex-block .mfrac").first).to_be_visible()
    expect(prose.locator(".tex-block .sqrt")).to_have_count(1)
    expect(prose.locator("code")).to_have_text("$not_maths$")
    expect(prose).to_contain_text("cost $5, or $5 and $6:")
    expect(prose).to_contain_text(r"$\frac{1$ are not")
    annotation = prose.locator("annotation").first  # for those who read with their ears
    expect(annotation).to_have_text("ax^2 + bx + c = 0")
    page.evaluate("document.fonts.ready.then(() => undefined)")  # wait_for_function would poll by eval: forbidden here
    assert page.evaluate("document.fonts.check('16px KaTeX_Math') && document.fonts.size > 0")
    assert fetched(server, ".woff2")


def test_what_needs_no_formulas_loads_none(page: Page, server: FakeServer) -> None:
    ask(page, server, "hello")
    assert fetched(server, "marked")
    assert not fetched(server, "katex")


def test_hostile_formulas_are_shown_and_never_run(page: Page, server: FakeServer) -> None:
    prose = ask(page, server, "hostile formulas")
    expect(prose.locator(".katex").first).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert prose.locator("a, img, script, [onmouseover], [onerror], [data-a]").count() == 0
    assert not fetched(server, "stolen")
    expect(prose.locator(".tex.problem").first).to_be_visible()
    for shown in ("onerror", "<script>window.hacked = 4</script>", "end"):
        expect(prose).to_contain_text(shown)
    assert prose.bounding_box()["height"] < 4000  # type: ignore[index]
    expect(page.get_by_role("textbox", name="Write a message")).to_be_visible()
