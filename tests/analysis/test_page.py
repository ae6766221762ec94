"""The page in a real browser: Debian's chromium and chromium-driver."""

import re

import numpy as np
import pytest

from speechbrain_hyperbolic.analysis.disk import distance_matrix
from speechbrain_hyperbolic.analysis.groups import columns_of
from speechbrain_hyperbolic.analysis.page import write_page
from tests.analysis.conftest import SPEAKERS, disk_distance, some_points

ENTER, ESCAPE, LEFT = "\ue007", "\ue00c", "\ue012"
BAD = (
    "</script><script>document.title=1</script>",
    '"><img src=x onerror="document.title=1">',
    "<!--",
    "'\"&amp;\\u003c\u2028\\",
)


class Page:
    """What a visitor does and sees."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get(path.as_uri())
        self.canvas = browser.find_element("id", "disk")
        self.run = browser.execute_script

    def wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(self.browser, 60, 0.05)
        return wait.until(lambda _: condition())

    def text(self, name):
        return self.run(
            "return document.getElementById(arguments[0]).textContent", name
        )

    def points(self):
        return np.array(self.run("return disk.points()")) @ [1, 1j]

    def pixels(self, index):
        return self.run("return disk.pixels(arguments[0])", index)

    def pointer(self, index):
        """Moves to a speaker."""
        from selenium.webdriver import ActionChains

        size = [self.canvas.size[side] for side in ("width", "height")]
        x, y = np.subtract(self.pixels(index), np.divide(size, 2)).tolist()
        actions = ActionChains(self.browser, duration=50)
        return actions.move_to_element_with_offset(
            self.canvas, round(x), round(y)
        )


@pytest.fixture
def page(browser, tmp_path, table):
    points, path = some_points(), tmp_path / "disk.html"
    columns = columns_of(table, SPEAKERS)
    write_page(path, points, SPEAKERS, "A title", columns, 1.317)
    browser.get_log("browser")
    page = Page(browser, path)
    page.true = points
    yield page
    assert browser.get_log("browser") == []


def test_radii_and_nearest_speakers_are_the_true_ones(page):
    radius = 2 * np.arctanh(abs(page.points()))
    np.testing.assert_allclose(radius, page.true.radius, atol=1e-5)
    page.pointer(4).perform()
    page.wait(lambda: SPEAKERS[4] in page.text("details"))
    text = page.text("details")
    assert text.startswith(f"{SPEAKERS[4]}sexfage24radius{radius[4]:.3f}")
    true = distance_matrix(page.true)[4]
    assert page.text("legend") == "f (15)m (14)unknown (1)"
    assert re.findall(r"(spk\d\d)(\d\.\d{3})", text) == [
        (SPEAKERS[j], f"{true[j]:.3f}") for j in true.argsort()[1:6]
    ]


def test_drag_is_an_isometry_that_takes_the_point_along(page):
    before = page.points()
    x, y = page.pixels(3)
    action = page.pointer(3).click_and_hold().move_by_offset(40, -25)
    action.move_by_offset(-90, 40).release().perform()
    after = page.points()
    true = disk_distance(before[:, None], before)
    found = disk_distance(after[:, None], after)
    np.testing.assert_allclose(found, true, atol=1e-9)
    assert np.hypot(*np.subtract(page.pixels(3), (x - 50, y + 15))) < 2


def test_click_and_search_move_a_speaker_to_the_origin(page):
    before = page.points()
    page.pointer(7).click().perform()
    page.wait(lambda: abs(page.points()[7]) < 1e-9)
    # A translation along the line to the origin turns no line through it.
    np.testing.assert_allclose(
        page.points(),
        (before - before[7]) / (1 - np.conj(before[7]) * before),
        atol=1e-9,
    )
    search = page.browser.find_element("id", "search")
    search.send_keys("SPK1")
    assert page.text("found") == "10 of 30 speakers found"
    search.send_keys("7", ENTER)
    index = SPEAKERS.index("spk17")
    page.wait(lambda: abs(page.points()[index]) < 1e-9)


def test_by_the_keyboard_alone(page):
    before = page.points()
    page.canvas.send_keys("n")
    first = page.run("return disk.chosen()")
    assert page.text("details").startswith(SPEAKERS[first])
    page.canvas.send_keys("n", "p", ENTER)
    assert page.run("return disk.chosen()") == first
    page.wait(lambda: abs(page.points()[first]) < 1e-9)
    page.canvas.send_keys(LEFT)  # the disk goes right
    assert 2 * np.arctanh(page.points()[first]) == pytest.approx(0.25)
    page.canvas.send_keys(ESCAPE)
    np.testing.assert_allclose(page.points(), before)
    assert page.text("details") == ""


def test_what_a_table_holds_is_text(browser, tmp_path):
    bad, names = " ".join(BAD), [*BAD, "b"]
    columns = columns_of({name: {bad: name} for name in BAD}, names)
    path = tmp_path / "disk.html"
    write_page(path, some_points(5), names, bad, columns)
    browser.get_log("browser")
    page = Page(browser, path)
    assert browser.title == page.text("title") == bad
    for _ in names:
        page.canvas.send_keys("n")
        name = names[page.run("return disk.chosen()")]
        known = bad + name if name in BAD else ""
        assert page.text("details").startswith(f"{name}{known}radius")
    assert all(name in page.text("legend") for name in BAD)
    assert len(browser.find_elements("css selector", "img, script")) == 2
    assert browser.get_log("browser") == []
