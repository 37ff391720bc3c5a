"""The page while its server goes away, comes back, wants a key, or lives under a path."""

from playwright.sync_api import Page, expect

from fake_server import FakeServer, FakeState, dense_model, moe_model


def ask(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="Write a message").fill(text)
    page.keyboard.press("Enter")


def test_a_restart_in_mid_answer_keeps_what_came(page: Page) -> None:
    with FakeServer(FakeState([moe_model()])) as first:
        page.goto(first.url)
        ask(page, "hold")
        expect(page.locator(".message.assistant .prose")).to_contain_text("A")
        assert first.holding.wait(30)
        port = first.server_address[1]
    notice = page.get_by_role("alert")
    expect(notice).to_contain_text("broke off in the middle")
    expect(page.locator(".message.assistant .prose")).to_contain_text("A")

    with FakeServer(FakeState([moe_model()]), port=port) as second:
        second.holding.set()
        page.reload()  # also what was kept
        expect(notice).to_contain_text("broke off in the middle")
        notice.get_by_role("button", name="Continue").click()
        expect(page.locator(".message.assistant .prose")).to_contain_text("and so it goes on.")
        expect(notice).to_have_count(0)
        (body,) = [body for path, body, _ in second.state.requests if path == "/v1/chat/completions"]
        assert body["messages"][-1]["content"].startswith("A")


def test_trying_again_asks_anew(page: Page, server: FakeServer) -> None:
    page.goto(server.url)
    ask(page, "drop")
    page.get_by_role("alert").get_by_role("button", name="Try again").click()
    expect(page.get_by_role("group", name="Branches")).to_contain_text("2/2")


def test_a_server_that_is_gone_is_said(page: Page) -> None:
    with FakeServer(FakeState([dense_model()])) as server:
        page.goto(server.url)
        expect(page.get_by_text("Connected")).to_be_attached()
    ask(page, "hello")
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")


def test_a_key_is_asked_for_and_sent(page: Page) -> None:
    state = FakeState([dense_model()], api_key="secret")
    with FakeServer(state) as server:
        page.goto(server.url)
        page.locator("dialog input[type=password]").fill("secret")
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_text("fake-dense").first).to_be_attached()
        ask(page, "think")
        expect(page.locator(".message.assistant:not(.streaming) strong")).to_have_text("42")
        page.get_by_role("button", name="Request and response").click()
        page.get_by_role("tab", name="curl").click()
        expect(page.get_by_role("dialog").locator("pre")).to_contain_text("$DEEPSEEK_API_KEY")
        expect(page.get_by_role("dialog").locator("pre")).not_to_contain_text("secret")
        assert page.evaluate("JSON.stringify(localStorage)").count("secret") == 0


def test_under_a_path(page: Page) -> None:
    with FakeServer(FakeState([dense_model()]), root="/some/where") as server:
        page.goto(server.url)
        ask(page, "think")
        expect(page.locator(".message.assistant:not(.streaming) strong")).to_have_text("42")


def test_nothing_comes_from_elsewhere(page: Page, server: FakeServer) -> None:
    """The page works offline: all it loads is the server's."""
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(server.url)
    for name in ("Experts", "Server", "Training", "Chat"):
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
        expect(page.get_by_role("main")).to_be_visible()
    assert addresses
    assert not [address for address in addresses if not address.startswith((server.url, "blob:", "data:"))]
