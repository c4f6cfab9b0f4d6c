"""`python -m docs.screenshots`: pictures of the server's page, for the guide on serving.

It needs Chromium, and the extras `page` and `test`.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import requests
from playwright.sync_api import Page, sync_playwright

from rws_keras import HelmholtzMachine
from rws_keras.datasets import Schema
from rws_keras.objectives import ReweightedWakeSleep
from rws_keras.serving.export import export

IMAGES = Path(__file__).with_name("images")
URL = "http://127.0.0.1:8599"
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
LAPTOP = {"viewport": {"width": 1280, "height": 860}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def survey(rows: int, seed: int) -> pd.DataFrame:
    """Answers of two kinds of people."""
    random = np.random.default_rng(seed)
    young = random.random(rows) < 0.5

    def answers(values, of_young, of_others):
        return [random.choice(values, p=of_young if is_young else of_others) for is_young in young]

    return pd.DataFrame(
        {
            "smokes": answers(["no", "yes"], [0.2, 0.8], [0.9, 0.1]),
            "drink": answers(["beer", "milk", "tea"], [0.8, 0.1, 0.1], [0.1, 0.4, 0.5]),
            "owns a car": answers(["no", "yes"], [0.7, 0.3], [0.1, 0.9]),
            "age": answers(["18-30", "31-50", "51-70"], [0.8, 0.1, 0.1], [0.2, 0.4, 0.4]),
        }
    )


def export_models(directory: Path) -> None:
    """Exports digits, MNIST and a survey."""
    for preset in ("digits-sbn-64-32", "mnist-sbn-200-200-200"):
        export(preset, directory)
    keras.utils.set_random_seed(0)
    table = survey(3000, seed=0)
    schema = Schema.infer(table)
    x = schema.encode(table)
    machine = HelmholtzMachine.from_sizes(
        x.shape[1], [6], p="arsbn", choices=schema.groups, schema=schema.get_config(), seed=0
    )
    machine.compile(keras.optimizers.Adam(5e-3), ReweightedWakeSleep(5))
    machine.fit(x[:2500], epochs=15, verbose=0)
    machine.calibrate(x[2500:])
    with tempfile.TemporaryDirectory() as folder:
        machine.save(Path(folder, "survey.keras"))
        export(Path(folder, "survey.keras"), directory)


@contextlib.contextmanager
def serving(models: Path) -> Iterator[None]:
    """The server with its page, ready."""
    command = [sys.executable, "-m", "rws_keras", "serve", "--models", str(models), "--page"]
    server = subprocess.Popen([*command, "--rest-port", "8599", "--grpc-port", "0"])
    try:
        for _ in range(300):
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"{URL}/readyz", timeout=5).status_code == 200:
                    break
            time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait()


def choose(page: Page, model: str, units: int) -> None:
    """Chooses a model of the page."""
    page.click("#model input")
    page.get_by_role("option", name=model).click()
    page.locator("#status").get_by_text(f"{units} visible units").wait_for()


def draw(page: Page, *points: tuple[float, float]) -> None:
    """Draws a line through points of the picture, from (0, 0) to (1, 1)."""
    box = page.locator("#editor .picture").bounding_box()
    assert box is not None
    for number, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=10)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def laptop(page: Page) -> None:
    """A seven with a missing part, completed."""
    choose(page, "mnist", 784)
    draw(page, (0.3, 0.25), (0.7, 0.25), (0.5, 0.8))
    page.click("#score")
    page.wait_for_selector("#result h2")
    page.click("#editor button[data-tool=hide]")
    for height in np.linspace(0.62, 0.85, 8):
        draw(page, (0.35, height), (0.7, height))
    page.click("#complete")
    page.wait_for_selector("#completions img")


def phone(page: Page) -> None:
    """A drawn sample and its score among those of validation rows."""
    page.click("#draw")
    page.wait_for_function("document.querySelector('#editor i[data-pixel=\"1\"]')")
    page.click("#score")
    page.wait_for_selector("#distribution svg")
    page.locator("#distribution").scroll_into_view_if_needed()


def table(page: Page) -> None:
    """A survey with missing answers."""
    choose(page, "survey", 8)
    answers = survey(12, seed=2)
    gaps = np.random.default_rng(0).random(answers.shape) < 0.2
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "answers.csv")
        answers.mask(gaps).to_csv(file, index=False)
        page.set_input_files("#file input[type=file]", file)
        page.locator("#file").get_by_text("answers").wait_for()
    page.click("#score-table")
    page.wait_for_selector("#table table")


def main() -> None:
    """Writes `docs/images/page-*.png`."""
    with tempfile.TemporaryDirectory() as models, sync_playwright() as started:
        export_models(Path(models))
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = started.chromium.launch(executable_path=chromium, args=OPTIONS)
        with serving(Path(models)):
            for scene, window in ((laptop, LAPTOP), (phone, PHONE), (table, LAPTOP)):
                page = browser.new_context(**window).new_page()  # type: ignore[arg-type]
                page.goto(f"{URL}/page/")
                page.locator("#status").get_by_text("visible units").wait_for()
                scene(page)
                page.wait_for_timeout(1000)
                page.screenshot(path=IMAGES / f"page-{scene.__name__}.png")
        browser.close()


if __name__ == "__main__":
    main()
