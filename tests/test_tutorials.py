"""The tutorials run from top to bottom, print what the pages say, and draw their pictures."""

import re

import pytest

from docs import pages

# A number, with its sign; training differs in the last digits from processor to processor.
NUMBER = re.compile(r"-?\d+(\.\d+)?")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]


@pytest.mark.parametrize("page", pages.TUTORIALS, ids=lambda page: page.stem)
def test_tutorial(page, tmp_path):
    found = pages.run(page, tmp_path)
    assert NUMBER.sub("#", found) == NUMBER.sub("#", page.read_text())
    for picture in pages.pictures(page):
        drawn, kept = tmp_path / picture.removeprefix("images/"), page.parent / picture
        assert drawn.read_bytes().startswith(b"\x89PNG")
        assert kept.read_bytes().startswith(b"\x89PNG")


def test_all_pictures_are_on_a_page():
    on_pages = {picture for page in pages.TUTORIALS for picture in pages.pictures(page)}
    images = (pages.DOCS / "tutorials" / "images").iterdir()
    assert {f"images/{path.name}" for path in images} == on_pages
