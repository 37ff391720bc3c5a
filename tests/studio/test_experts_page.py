"""The experts page in a real browser."""

import pytest
from playwright.sync_api import Page, expect

from fake_server import ACTIVE, EXPERTS, FakeServer, FakeState, dense_model, moe_model, routing


@pytest.fixture
def experts(page: Page, server: FakeServer) -> Page:
    page.goto(f"{server.url}#/experts")
    page.get_by_role("textbox", name="Text for the model").fill("think")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_text("26 tokens counted")).to_be_visible()
    expect(page.get_by_role("button", name="Generate")).to_be_visible()
    return page


def test_tokens_are_counted_and_coloured(experts: Page, server: FakeServer) -> None:
    tokens = experts.locator(".expert-token")
    expect(tokens).to_have_count(26)
    colours = tokens.evaluate_all("(all) => all.map((one) => getComputedStyle(one).backgroundColor)")
    assert len(set(colours)) > 2
    assert "rgba(0, 0, 0, 0)" not in colours

    model = server.state.models[0]
    tokens.nth(3).hover()
    best = routing(tokens.nth(3).inner_text(), model)[0][0]
    card = experts.get_by_role("tooltip")
    for expert in best:
        expect(card).to_contain_text(f"Expert {expert}")
    assert len(best) == ACTIVE


def test_another_layer_colours_anew(experts: Page) -> None:
    tokens = experts.locator(".expert-token")
    read = "(all) => all.map((one) => getComputedStyle(one).backgroundColor)"
    before = tokens.evaluate_all(read)
    experts.locator("#strip").get_by_role("combobox", name="Layer").select_option("3")
    assert tokens.evaluate_all(read) != before
    expect(experts.locator("#pairs").get_by_role("combobox", name="Layer")).to_have_value("3")


def test_a_cell_marks_its_tokens(experts: Page, server: FakeServer) -> None:
    """By keys: down to the second layer, right to expert 2."""
    experts.locator("#heat canvas").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowRight", "Enter"):
        experts.keyboard.press(key)
    expect(experts.get_by_text("with expert 2 of layer 2")).to_be_visible()
    tokens = experts.locator(".expert-token")
    model = server.state.models[0]
    for place in range(26):
        used = 2 in routing(tokens.nth(place).text_content() or "", model)[1][0]
        assert ("faded" in (tokens.nth(place).get_attribute("class") or "")) is not used


def test_balance_is_what_the_counts_say(experts: Page, server: FakeServer) -> None:
    model = server.state.models[0]
    texts = experts.locator(".expert-token").all_text_contents()
    counts = [0] * EXPERTS
    for text in texts:
        for expert in routing(text, model)[0][0]:
            counts[expert] += 1
    mean = sum(counts) / EXPERTS
    ordered = sorted(counts)
    gini = sum((2 * (place + 1) - EXPERTS - 1) * count for place, count in enumerate(ordered)) / (EXPERTS * sum(counts))
    cells = experts.locator("#balance tbody tr").first.locator("td")
    expect(cells.nth(3)).to_have_text(f"{gini:.2f}")
    expect(cells.nth(4)).to_have_text(f"{max(counts) / mean - 1:.2f}")


def test_kinds_of_text_are_compared(experts: Page, server: FakeServer) -> None:
    experts.get_by_role("button", name="Read the samples").click()
    rows = experts.locator("#kinds table tr")
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text("Code")
    asked = [body for path, body, _ in server.state.requests if path == "/v1/completions"]
    assert len(asked) == 5
    assert all(body["routed_experts"] == "all" and body["max_tokens"] == 1 for body in asked)
    rows.first.get_by_role("button").first.click()
    expect(experts.get_by_text("with expert")).to_be_visible()


def test_a_model_without_a_chat_template_goes_on_with_the_text(page: Page) -> None:
    with FakeServer(FakeState([moe_model("fake-base")])) as server:
        page.goto(f"{server.url}#/experts")
        page.get_by_role("button", name="Generate").click()
        expect(page.get_by_text("2 tokens counted")).to_be_visible()
        expect(page.locator(".expert-token")).to_have_text([" so", " on"])
        assert server.state.requests[-1][1]["prompt"].startswith("Tell me")


def test_a_dense_model_says_so_and_offers_another(page: Page) -> None:
    with FakeServer(FakeState([dense_model()])) as server:
        page.goto(f"{server.url}#/experts")
        expect(page.get_by_role("heading", name="fake-dense is a dense model")).to_be_visible()
        expect(page.get_by_text("deepseek serve").first).to_be_visible()
