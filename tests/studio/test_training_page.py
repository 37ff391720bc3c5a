"""The training page: runs while they grow and afterwards, two in one chart, and whatever may stand in their files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from filelock import FileLock
from playwright.sync_api import Browser, Locator, Page, expect

from fake_server import FakeServer, FakeState, moe_model
from live_server import live, tiny_engine, write_tiny_moe
from training_folders import STEP_TOKENS, record, write_lines, write_run

LONG_WAIT = 30_000  # milliseconds: the page looks every two seconds, on a busy machine
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def server(runs: Path) -> Iterator[FakeServer]:
    with FakeServer(FakeState([moe_model()], runs=runs)) as running:
        yield running


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    expect.set_options(timeout=LONG_WAIT)
    yield
    expect.set_options(timeout=5_000)


def open_page(page: Page, server: FakeServer) -> None:
    page.set_default_timeout(LONG_WAIT)
    page.goto(f"{server.url}#/training")


def card(page: Page, name: str) -> Locator:
    return page.locator(".card").filter(has=page.locator(".name", has_text=name)).first


def asked_of_the_log(server: FakeServer, name: str) -> list[dict[str, Any]]:
    path = f"/v1/training/runs/{name}/log"
    return [parse_qs(query) for at, query, _ in server.state.requests if at == path]


def test_a_run_that_ended(page: Page, server: FakeServer, runs: Path) -> None:
    write_run(runs / "one", 40)
    open_page(page, server)
    expect(page.locator("#runs")).to_contain_text("finished")
    expect(card(page, "Step")).to_contain_text("40 / 40")
    expect(card(page, "Loss")).to_contain_text("2.200")
    expect(card(page, "Held-out loss")).to_contain_text("2.000")
    expect(card(page, "Speed")).to_contain_text("25% of the machine's peak")
    expect(card(page, "Memory")).to_contain_text("1.00 GiB")
    expect(page.locator("#loss .legend").last).to_contain_text("held-out english")
    for name in ("loss", "learning-rate", "gradient-norm", "tokens-per-second", "peak-share", "memory-bytes"):
        expect(page.locator(f"#{name} path").first).to_be_attached()
    expect(page.locator("#samples pre")).to_have_text("Return a value of <b>x</b>")
    expect(page.locator("#needle tbody tr")).to_contain_text(["75%"])
    expect(page.locator("#facts")).to_contain_text("a processor, 2 cores")
    page.get_by_text("Recipe", exact=True).click()
    expect(page.locator("#facts details[open] pre")).to_contain_text('"load_every": 10')


def test_the_charts_are_read_by_pointer_and_by_key(page: Page, server: FakeServer, runs: Path) -> None:
    write_run(runs / "one", 40)
    open_page(page, server)
    expect(page.locator("#loss path").first).to_be_attached()
    page.locator("#loss select[aria-label='Smoothing of the training loss']").select_option("1")
    page.locator("#loss svg").focus()
    page.keyboard.press("End")
    tip = page.get_by_role("tooltip")
    expect(tip).to_contain_text("step 40")
    expect(tip).to_contain_text("2.20")
    page.keyboard.press("Home")
    expect(tip).to_contain_text("10.00")
    page.get_by_role("button", name="Tokens", exact=True).click()
    page.locator("#loss svg").hover(position={"x": 900, "y": 60})
    expect(tip).to_contain_text("K tokens")


def test_loads_over_time(page: Page, server: FakeServer, runs: Path) -> None:
    write_run(runs / "one", 40)
    open_page(page, server)
    place = page.locator(".scrub-place")
    expect(place).to_contain_text("step 40")
    slider = page.get_by_role("slider", name="Step")
    slider.focus()
    page.keyboard.press("Home")
    expect(place).to_contain_text("step 10 · 10.2K tokens")
    page.keyboard.press("ArrowRight")
    expect(place).to_contain_text("step 20")
    page.locator("#load canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tooltip")).to_contain_text("10.0% of the layer, 0.40 times the mean")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#load-time select")).to_have_value("1")
    page.locator("#maxvio canvas").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("tooltip")).to_contain_text("MaxVio 0.60")
    expect(page.locator("#dropped svg path").first).to_be_attached()


def test_maxvio_is_computed_where_it_is_not_recorded(page: Page, server: FakeServer, runs: Path) -> None:
    folder = write_run(runs / "one", 9)
    layers = [{"layer": 1, "load_e": [0.7, 0.1, 0.1, 0.1]}]
    write_lines(folder / "log.jsonl", [{"step": 10, "layers": layers}], more=True)
    open_page(page, server)
    page.locator("#maxvio canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tooltip")).to_contain_text("MaxVio 1.80")
    expect(page.locator("#dropped")).to_be_hidden()


def test_a_run_is_watched_while_it_grows(page: Page, server: FakeServer, runs: Path) -> None:
    folder = write_run(runs / "now", 10, planned=100)
    log = folder / "log.jsonl"
    with FileLock(folder / ".lock"):
        open_page(page, server)
        expect(page.locator(".going-on")).to_have_text("going on")
        expect(card(page, "Step")).to_contain_text("left")
        size = log.stat().st_size
        half = json.dumps(record(21))
        write_lines(log, [record(step) for step in range(11, 21)], more=True)
        with log.open("a") as file:
            file.write(half[:50])
        expect(card(page, "Step")).to_contain_text("20 / 100")
        expect(page.locator(".scrub-place")).to_contain_text("step 20")
        with log.open("a") as file:
            file.write(half[50:] + "\n")
        write_lines(folder / "samples.jsonl", [{"step": 21, "prompt": "def", "text": " main():"}], more=True)
        expect(card(page, "Step")).to_contain_text("21 / 100")
        expect(page.locator("#samples pre")).to_have_text("def main():")
    expect(page.locator(".going-on")).to_have_count(0)
    expect(page.locator("#runs")).to_contain_text("not going on")
    offsets = [int(query["offset"][0]) for query in asked_of_the_log(server, "now")]
    assert offsets[0] == 0
    assert min(offsets[1:]) >= size, "only new bytes are asked for"
    server.state.requests.clear()
    page.wait_for_timeout(4500)
    assert asked_of_the_log(server, "now") == [], "what has not grown is not asked for"


def test_a_run_that_goes_back_to_a_checkpoint(page: Page, server: FakeServer, runs: Path) -> None:
    """Its log is written anew, and then again in other words."""
    log = write_run(runs / "one", 40, planned=100) / "log.jsonl"
    open_page(page, server)
    expect(card(page, "Step")).to_contain_text("40 / 100")
    write_lines(log.with_suffix(".new"), [record(step) for step in range(1, 13)])
    log.with_suffix(".new").replace(log)
    expect(card(page, "Step")).to_contain_text("12 / 100")
    expect(page.locator(".scrub-place")).to_contain_text("step 10")
    expect(page.get_by_role("slider", name="Step")).to_have_attribute("max", "0")  # of the old steps nothing is left
    page.locator("#loss svg").focus()
    page.keyboard.press("End")
    expect(page.get_by_role("tooltip")).to_contain_text("step 12")


def test_a_server_that_goes_away_and_comes_back(page: Page, runs: Path) -> None:
    folder = write_run(runs / "one", 10, planned=100)
    with FakeServer(FakeState([moe_model()], runs=runs)) as first:
        open_page(page, first)
        expect(card(page, "Speed")).to_contain_text("2,048")
        port = first.server_address[1]
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    expect(card(page, "Step")).to_contain_text("10 / 100")
    write_lines(folder / "log.jsonl", [record(11)], more=True)
    with FakeServer(FakeState([moe_model()], runs=runs), port=port) as second:
        expect(card(page, "Step")).to_contain_text("11 / 100")
        expect(page.get_by_role("alert")).to_be_hidden()
        assert int(asked_of_the_log(second, "one")[0]["offset"][0]) > 0


def test_two_runs_in_one_chart(page: Page, server: FakeServer, runs: Path) -> None:
    write_run(runs / "mixture", 40)
    write_run(runs / "dense-twin", 30)
    open_page(page, server)
    page.get_by_role("button", name="mixture").click()
    page.get_by_role("combobox", name="Compare with another run").select_option("dense-twin")
    legend = page.locator("#loss .legend").last
    expect(legend).to_contain_text("mixture: training")
    expect(legend).to_contain_text("dense-twin: held-out code")
    expect(legend.locator(".key.dashed")).to_have_count(3)
    expect(page.locator("#loss path.dashed")).to_have_count(1)  # a single evaluation is a dot
    page.get_by_role("button", name="dense-twin").focus()
    page.keyboard.press("Enter")  # the compared one is chosen: it is compared with nothing
    expect(page.locator("#loss path.dashed")).to_have_count(0)
    expect(page.get_by_role("button", name="dense-twin")).to_be_focused()


def test_of_many_sources_their_mean_or_one_is_shown(page: Page, server: FakeServer, runs: Path) -> None:
    folder = write_run(runs / "one", 40)
    losses = {f"source-{number}": float(number) for number in range(1, 31)}
    write_lines(folder / "evaluations.jsonl", [{"step": 20, "tokens": 20_480, "loss": losses}])
    open_page(page, server)
    legend = page.locator("#loss .legend").last
    expect(legend).to_contain_text("held-out, mean of 30 sources")
    expect(legend.locator(".key")).to_have_count(2)
    expect(card(page, "Held-out loss")).to_contain_text("15.50")
    page.get_by_role("combobox", name="Held-out text").select_option("source-7")
    expect(legend).to_contain_text("held-out source-7")
    expect(legend.locator(".key")).to_have_count(2)


def test_whatever_stands_in_the_files_is_text(page: Page, server: FakeServer, runs: Path) -> None:
    name = "<img src=x onerror='window.hacked = 3'>&%23 ..\\"
    folder = write_run(
        runs / name, 9, config={"family": HOSTILE, "moe": HOSTILE}, recipe=[HOSTILE], machine=HOSTILE, stages=[7, None]
    )
    strange: list[dict[str, Any]] = [
        {"step": 10, "layers": HOSTILE}, {"step": 20, "layers": [None]}, {"step": 30, "loss": HOSTILE, "tokens": []},
        {"step": 40, "layers": [{"load_e": [HOSTILE, None, -1]}]}, {"step": 50, "layers": [{"load_e": [1.0]}]},
    ]  # fmt: skip
    write_lines(folder / "log.jsonl", strange, more=True)
    write_lines(folder / "evaluations.jsonl", [{"step": 10, "loss": {HOSTILE: 3.0, "x": HOSTILE}}, {"step": 10}])
    write_lines(folder / "samples.jsonl", [{"step": 10, "prompt": HOSTILE, "text": HOSTILE}, {"step": 10, "text": {}}])
    write_lines(folder / "needle.jsonl", [{"step": 10, "recall": {HOSTILE: HOSTILE}}, {"step": 10, "recall": HOSTILE}])
    with (folder / "log.jsonl").open("a") as file:
        file.write("{\n" + HOSTILE + "\n")
    open_page(page, server)
    expect(page.get_by_role("button", name=name)).to_be_visible()
    expect(page.locator("#samples pre").first).to_have_text(HOSTILE + HOSTILE)
    expect(page.locator("#loss")).to_contain_text("2 lines of the log could not be read")
    expect(page.locator("#loss .legend").last).to_contain_text(f"held-out {HOSTILE}")
    expect(page.locator("#facts")).to_contain_text(HOSTILE)
    expect(page.locator("#needle tbody tr").first).to_be_visible()
    expect(page.locator(".scrub-place")).to_contain_text("step 40")  # the one record of loads that can be drawn
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.hacked") is None


def test_a_long_log_is_thinned_and_the_page_says_so(page: Page, server: FakeServer, runs: Path) -> None:
    folder = write_run(runs / "long", 1, planned=20_000)
    write_lines(folder / "log.jsonl", [record(step) for step in range(1, 20_001)])
    open_page(page, server)
    expect(page.locator("#loss")).to_contain_text("One step in 10 is shown.")
    expect(page.locator("#load")).to_contain_text("one step in 100")
    assert asked_of_the_log(server, "long")[0]["every"] == ["10"]
    expect(page.locator(".scrub-place")).to_contain_text("step 20,000")


def test_without_runs_it_says_how_to_start_one(page: Page, server: FakeServer, runs: Path) -> None:
    open_page(page, server)
    expect(page.get_by_role("heading", name="No training runs yet")).to_be_visible()
    expect(page.locator("#runs")).to_contain_text("deepseek train recipes/smoke.toml")
    expect(page.locator("#runs")).to_contain_text(str(runs))
    write_run(runs / "first")
    expect(page.get_by_role("button", name="first")).to_be_visible()


def test_chinese_dark_and_small(browser: Browser, server: FakeServer, runs: Path) -> None:
    write_run(runs / "one")
    context = browser.new_context(locale="zh-CN", color_scheme="dark", viewport={"width": 380, "height": 740})
    page = context.new_page()
    open_page(page, server)
    expect(page.get_by_role("heading", name="专家的负载")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    assert page.locator("main").evaluate("(main) => main.scrollWidth - main.clientWidth") <= 0
    page.get_by_role("button", name="Switch to English").click()
    expect(page.get_by_role("heading", name="Load of the experts")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    context.close()


def test_every_control_has_a_name(page: Page, server: FakeServer, runs: Path) -> None:
    write_run(runs / "one")
    write_run(runs / "two")
    open_page(page, server)
    expect(page.locator("#facts dl")).to_be_visible()
    nameless = page.locator("button, a, input, select, canvas, [role=img]").evaluate_all(
        """(all) => all.filter((one) => one.checkVisibility() && one.getAttribute("aria-hidden") !== "true"
             && !(one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.length))
           .map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_on_a_real_server(page: Page, runs: Path, tmp_path: Path) -> None:
    write_run(runs / "one", 40)
    model = write_tiny_moe(tmp_path / "tiny")
    with live(tiny_engine(model), runs=str(runs)) as server:
        page.set_default_timeout(LONG_WAIT)
        page.goto(f"{server.url}/#/training")
        expect(card(page, "Step")).to_contain_text("40 / 40")
        expect(card(page, "Tokens")).to_contain_text(f"{40 * STEP_TOKENS / 1000:.0f}K")
        expect(page.locator("#samples pre")).to_have_text("Return a value of <b>x</b>")
