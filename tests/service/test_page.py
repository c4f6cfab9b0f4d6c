"""The page in a browser: pictures to draw, score and complete; tables; errors; a phone."""

import json
import re
import shutil

import numpy as np
import pytest
import requests
from server_process import ServerProcess
from survey import TABLE, save_machine
from wire import PRESET, SMALL

from rws_keras.errors import UserError
from rws_keras.models import Calibration
from rws_keras.serving.client import Client
from rws_keras.serving.export import export
from rws_keras.serving.page import drawings
from rws_keras.serving.page.models import Model

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed."),
]
# As root it has no sandbox; the rest keeps it from calling home.
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
KEY = "a key"
LOGIN = {"username": "anybody", "password": KEY}
SECONDS = 20_000  # in milliseconds: how long to wait for what must appear


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("page")
    export(PRESET, directory / "models", "digits", **SMALL)
    export(save_machine(directory / "survey.keras"), directory / "models", **SMALL)
    options = ["--models", directory / "models", "--page", "--api-key", KEY]
    server = ServerProcess(*options, log=directory / "log")
    yield server
    assert server.stop() == 0, server.log


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def opened(server, browser):
    """Opens the page in a window of a size, with a model chosen."""
    contexts = []

    def open_page(model="digits", **options):
        contexts.append(browser.new_context(**options))
        contexts[-1].request.post(f"{server.url}/page/login", form=LOGIN)
        page = contexts[-1].new_page()
        page.set_default_timeout(SECONDS)
        page.requested = []
        page.on("request", lambda request: page.requested.append(request.url))
        page.goto(f"{server.url}/page/")
        page.locator("#status").get_by_text("64 visible units").wait_for()
        if model != "digits":
            page.click("#model input")
            page.get_by_role("option", name=model).click()
            page.locator("#status").get_by_text("4 visible units").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()


def stroke(page, *points):
    """Draws a line through points of the picture, from (0, 0) to (1, 1)."""
    box = page.locator("#editor .picture").bounding_box()
    for number, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=8)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def drawn(page):
    """The picture as the page shows it, a row of 0, 1 and NaN."""
    cells = page.locator("#editor .picture i").evaluate_all(
        "cells => cells.map(cell => cell.dataset.pixel)"
    )
    return np.array([np.nan if cell == "?" else float(cell) for cell in cells])


def nats(page):
    page.wait_for_selector("#result h2")
    return float(re.fullmatch(r"(-[\d.]+) nats", page.inner_text("#result h2"))[1])


def test_draw_score_and_complete(server, opened):
    page, client = opened(), Client(server.url, "digits", api_key=KEY)
    stroke(page, (0.5, 0.1), (0.5, 0.9))
    x = drawn(page)
    assert set(np.flatnonzero(x)) >= {12, 20, 28, 36, 44, 52}
    page.click("#score")
    expected = client.score(x[None])["log_likelihood"][0]
    assert nats(page) == pytest.approx(expected, abs=0.006)
    page.click("#editor button[data-tool=erase]")
    stroke(page, (0.5, 0.9), (0.5, 0.7))
    assert drawn(page).sum() < x.sum()
    page.click("#editor button[data-tool=hide]")
    stroke(page, (0.1, 0.3), (0.9, 0.3))
    x = drawn(page)
    known = ~np.isnan(x)
    assert 6 <= (~known).sum() <= 10
    page.click("#complete")
    page.wait_for_selector("#completions img")
    found = client.predict("impute", x=np.where(known, x, 0.0)[None], mask=known[None])
    assert nats(page) == pytest.approx(found["log_likelihood"][0], abs=0.006)
    assert page.locator("#completions img").count() == 1 + SMALL["num_completions"]
    # Everything comes from the server itself: the page works without a network.
    assert all(url.startswith((server.url, "data:", "blob:")) for url in page.requested)


def test_what_cannot_be_done_is_explained(opened):
    page = opened()
    page.click("#complete")
    page.get_by_text("No pixel is missing").wait_for()


def test_samples_one_by_one_and_the_card(opened):
    page = opened()
    for number in (1, 2):
        page.click("#more")
        page.wait_for_function(f"document.querySelectorAll('#samples img').length == {number}")
    page.get_by_role("tab", name="Card").click()
    page.locator("#card").get_by_text("Two layers on scikit-learn's 8x8 digits").wait_for()
    assert page.locator("#card img").evaluate("image => image.naturalWidth") > 0
    page.get_by_role("tab", name="Receptive fields").click()
    page.wait_for_function("document.querySelector('#fields img').naturalWidth > 0")


def test_a_table_with_gaps(server, opened, tmp_path):
    file = tmp_path / "answers.csv"
    file.write_text(TABLE)
    page = opened("survey")
    page.set_input_files("#file input[type=file]", file)
    page.locator("#file").get_by_text("answers").wait_for()
    page.click("#score-table")
    page.wait_for_selector("#table table")
    cells = page.locator("#table tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    )
    assert [row[0] for row in cells] == ["1", "2", "3"]
    assert cells[0][2:] == ["yes", "tea"]
    assert page.locator("#table td.imputed").count() == 2
    assert "2 missing values" in page.inner_text("#table-result")
    x = np.float32([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]])
    mask = np.float32([[1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 0, 0]])
    client = Client(server.url, "survey", api_key=KEY)
    found = client.predict("impute", x=x * mask, mask=mask)
    scores = [client.score(x[:1])["log_likelihood"][0], *found["log_likelihood"][1:]]
    np.testing.assert_allclose([float(row[1]) for row in cells], scores, atol=0.006)
    p = found["mean"][1, 0]  # of "smokes"
    assert cells[1][2] == f"{'yes' if p > 0.5 else 'no'} {max(p, 1 - p):.0%}"
    file.write_text("smokes,drink\nyes,gin\n")
    page.get_by_label("Remove").or_(page.get_by_label("Clear")).first.click()
    page.set_input_files("#file input[type=file]", file)
    page.locator("#file").get_by_text("answers").wait_for()
    page.click("#score-table")
    page.get_by_text("column 'drink': 'gin' is not one of its values").wait_for()


def test_models_that_the_page_cannot_show(tmp_path):
    about = {"preset": {"visible_units": 2}, "schema": None, "calibration": None, "binary": False}
    about["num_particles"] = {"serving_default": 5}
    path = tmp_path / "1" / "assets.extra" / "model.json"
    path.parent.mkdir(parents=True)
    with pytest.raises(UserError, match="was not written by `rws-keras export`"):
        Model.of("m", tmp_path / "1")
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match="the units of m are real"):
        Model.of("m", tmp_path / "1")
    path.write_text(json.dumps({**about, "binary": True}))
    assert Model.of("m", tmp_path / "1").units == 2
    del about["schema"]
    path.write_text(json.dumps(about))
    with pytest.raises(UserError, match="export it again"):
        Model.of("m", tmp_path / "1")


def test_many_validation_rows():
    """Of which some are kept: the histogram counts those that they stand for."""
    values = np.sort(np.random.default_rng(0).normal(-90.0, 5.0, 10_000)).astype(np.float32)
    calibration = Calibration(values, 100)
    kept = np.array(calibration.get_config()["log_likelihoods"])
    assert len(kept) < 3000
    np.testing.assert_allclose(calibration.shares.sum(), 1.0)
    for level in (0.01, 0.1, 0.5, 0.9):
        below = calibration.shares[kept <= np.quantile(values, level)].sum()
        assert below == pytest.approx(level, abs=1e-3)
    # The same bars as those of all rows, to a pixel or two.
    evenly = np.full(len(values), 1 / len(values))
    heights = [
        np.array(re.findall(r'height="([\d.]+)"/>', drawings.histogram(*rows, marked=-80.0)), float)
        for rows in ((values, evenly), (kept, calibration.shares))
    ]
    np.testing.assert_allclose(heights[1], heights[0], atol=3.0)


def call(visitor, server, name, *data):
    """Calls a function of the page as its browser does; returns how it told the outcome."""
    address = f"{server.url}/page/gradio_api/queue"
    config = visitor.get(f"{server.url}/page/config", timeout=30).json()
    (function,) = [each for each in config["dependencies"] if each["api_name"] == name]
    body = {"fn_index": function["id"], "session_hash": "one", "data": data}
    visitor.post(f"{address}/join", json=body, timeout=30).raise_for_status()
    events = visitor.get(f"{address}/data?session_hash=one", stream=True, timeout=30)
    with events:
        for line in events.iter_lines():
            if b"process_completed" in line:
                return json.loads(line.removeprefix(b"data: "))
    raise AssertionError("The function does not end.")


def test_forged_paths_and_large_bodies_are_refused(server, tmp_path):
    """Of files only those that a visitor has uploaded are read."""
    visitor = requests.Session()
    visitor.post(f"{server.url}/page/login", data=LOGIN, timeout=30).raise_for_status()
    assert call(visitor, server, "names")["success"]
    secret = tmp_path / "secret.csv"
    secret.write_text("smokes,drink\nyes,secret\n")
    forged = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
    outcome = call(visitor, server, "score_table", "survey", forged)
    assert not outcome["success"]
    assert "was not uploaded by a user" in outcome["output"]["error"]
    join = f"{server.url}/page/gradio_api/queue/join"
    assert visitor.post(join, data=b"x" * (17 * 2**20), timeout=30).status_code == 413
    assert visitor.get(f"{server.url}/page/gradio_api/runs", timeout=30).status_code == 404


def test_without_the_key_there_is_no_page(server):
    assert requests.get(f"{server.url}/page/config", timeout=30).status_code == 401
    given = {"username": "anybody", "password": "wrong"}
    answer = requests.post(f"{server.url}/page/login", data=given, timeout=30)
    assert answer.status_code == 400
    assert requests.get(f"{server.url}/v1/models/digits", timeout=30).status_code == 401


def test_it_fits_a_phone(opened):
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#editor .picture").bounding_box()
    page.touchscreen.tap(box["x"] + 5, box["y"] + 5)
    page.wait_for_function("document.querySelector('#editor .picture i').dataset.pixel == '1'")
