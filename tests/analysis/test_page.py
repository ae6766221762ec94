"""The page in a real browser: Debian's chromium and chromium-driver."""

import json
import re
import shutil

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from speechbrain_hyperbolic.analysis.columns import columns_of
from speechbrain_hyperbolic.analysis.disk import distance_matrix, geodesics
from speechbrain_hyperbolic.analysis.page import write_page
from speechbrain_hyperbolic.errors import InputError
from tests.analysis.conftest import SPEAKERS, disk_distance, some_points

ENTER, ESCAPE, LEFT, RIGHT = "\ue007", "\ue00c", "\ue012", "\ue014"
BAD = (
    "</script><script>document.title=1</script>",
    '"><img src=x onerror="document.title=1">',
    "<!--",
    "'\"&amp;\\u003c\u2028\\",
)


def all_distances(z):
    return disk_distance(z[:, None], z)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed"
    )
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium or its driver is missing: apt-get install both")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--window-size=1100,900"),
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
        "--host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield browser
    browser.quit()


class Page:
    """What a visitor does and sees."""

    def __init__(self, browser, path):
        self.browser = browser
        browser.get(path.as_uri())
        self.canvas = browser.find_element("id", "disk")
        self.wait(lambda: self.run("return disk.points().length"))

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, 20, 0.05).until(
            lambda _: condition()
        )

    def text(self, name):
        return self.run(
            "return document.getElementById(arguments[0]).textContent", name
        )

    def points(self):
        return np.array(self.run("return disk.points()")) @ [1, 1j]

    def chosen(self):
        return self.run("return disk.chosen()")

    def pixels(self, index):
        return self.run("return disk.pixels(arguments[0])", index)

    def pointer(self, x, y):
        """Moves to a place of the canvas."""
        from selenium.webdriver import ActionChains

        width, height = self.run(
            "const c = arguments[0]; return [c.clientWidth, c.clientHeight]",
            self.canvas,
        )
        return ActionChains(
            self.browser, duration=50
        ).move_to_element_with_offset(
            self.canvas, round(x - width / 2), round(y - height / 2)
        )

    def colors(self, places):
        """RGB of pixels of the canvas, [N, 3]."""
        pixels = self.run(
            "const c = arguments[0], r = devicePixelRatio;"
            "const all = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data;"
            "return arguments[1].map((place) => {"
            "  const [x, y] = place.map((v) => Math.floor(v * r));"
            "  return [...all.slice(4 * (y * c.width + x)).slice(0, 3)]; })",
            self.canvas,
            places,
        )
        return np.array(pixels)


@pytest.fixture
def page(browser, tmp_path, table):
    points = some_points()
    columns = columns_of(table, SPEAKERS)
    path = tmp_path / "disk.html"
    write_page(path, points, SPEAKERS, "A title", list(columns.values()), 1.317)
    browser.get_log("browser")
    page = Page(browser, path)
    page.true, page.columns = points, columns
    page.square = distance_matrix(points)
    yield page
    assert browser.get_log("browser") == []


def test_points_are_drawn_at_their_radius_in_their_color(page):
    radius = 2 * np.arctanh(abs(page.points()))
    np.testing.assert_allclose(radius, page.true.radius, atol=1e-5)
    sex = page.columns["sex"]
    wanted = [255 * np.array(to_rgb(sex.styles[g][0])) for g in sex.groups]
    places = [page.pixels(index) for index in range(30)]
    hits = abs(page.colors(places) - wanted).max(1) < 3
    assert hits.sum() >= 27  # a point may be behind another one
    assert page.text("legend") == "f (15)m (14)unknown (1)"
    assert page.browser.title == "A title"


def test_hover_tells_true_distances(page):
    index = 4
    page.pointer(*page.pixels(index)).perform()
    page.wait(lambda: SPEAKERS[index] in page.text("details"))
    text = page.text("details")
    radius = float(page.true.radius[index])
    known = f"sex{'fm'[index % 2]}age{20 + index}radius{radius:.3f}"
    assert text.startswith(SPEAKERS[index] + known)
    assert re.findall(r"(spk\d\d)(\d\.\d{3})", text) == [
        (SPEAKERS[j], f"{page.square[index, j]:.3f}")
        for j in page.square[index].argsort()[1:6]
    ]
    page.pointer(3, 3).perform()
    page.wait(lambda: not page.text("details"))


def test_drag_is_an_isometry_that_takes_the_point_along(page):
    before = page.points()
    x, y = page.pixels(3)
    (
        page.pointer(x, y)
        .click_and_hold()
        .move_by_offset(40, -25)
        .move_by_offset(-90, 40)
        .release()
        .perform()
    )
    after = page.points()
    assert abs(after - before).max() > 0.01
    np.testing.assert_allclose(
        all_distances(after), all_distances(before), atol=1e-9
    )
    assert np.hypot(*np.subtract(page.pixels(3), (x - 50, y + 15))) < 2
    assert page.chosen() == -1


def test_click_moves_a_speaker_to_the_origin(page):
    before = page.points()
    page.pointer(*page.pixels(7)).click().perform()
    page.wait(lambda: abs(page.points()[7]) < 1e-9)
    # A translation along the line to the origin turns no line through it.
    np.testing.assert_allclose(
        page.points(),
        (before - before[7]) / (1 - np.conj(before[7]) * before),
        atol=1e-9,
    )
    size = page.run("return arguments[0].clientWidth", page.canvas)
    for index in range(30):
        assert all(0 <= v <= size for v in page.pixels(index))
    page.browser.find_element("id", "reset").click()
    np.testing.assert_allclose(page.points(), before)


def test_the_tree_is_drawn_along_geodesics(page):
    """After a motion, there is ink at the middle of long edges."""
    page.pointer(*page.pixels(7)).click().perform()
    page.wait(lambda: abs(page.points()[7]) < 1e-9)
    data = json.loads(page.text("data"))
    z = np.array(data["x"]) + 1j * np.array(data["y"])
    starts, ends = z[:-1], z[np.array(data["parent"][:-1])]
    steps = [16, 17]  # in the middle of 32
    middle = geodesics(starts, ends)[:, steps].mean(1) @ [1, 1j]
    middle = middle[disk_distance(starts, ends) > 0.2]
    middle = (middle - z[7]) / (1 - np.conj(z[7]) * middle)
    # The same similarity takes all points to pixels.
    (a, b), (u, v) = page.points()[:2], (page.pixels(0), page.pixels(1))
    scale = (u[0] - v[0]) / (a - b).real
    places = np.stack([middle.real, -middle.imag], 1) * scale
    places += u - scale * np.array([a.real, -a.imag])
    around = [
        (places + [x, y]).tolist() for x in (-1, 0, 1) for y in (-1, 0, 1)
    ]
    ink = page.colors(sum(around, [])).min(1).reshape(9, -1).min(0)
    assert len(ink) >= 8 and (ink < 225).all()


def test_by_the_keyboard_alone(page):
    before = page.points()
    page.canvas.send_keys("n")
    first = page.chosen()
    assert page.text("details").startswith(SPEAKERS[first])
    page.canvas.send_keys("n", "p")
    assert page.chosen() == first
    page.canvas.send_keys(ENTER)
    page.wait(lambda: abs(page.points()[first]) < 1e-9)
    page.canvas.send_keys(LEFT)  # the disk goes right
    assert 2 * np.arctanh(page.points()[first]) == pytest.approx(0.25)
    page.canvas.send_keys(9 * (20 * LEFT + 20 * RIGHT))  # many motions
    np.testing.assert_allclose(
        all_distances(page.points()), all_distances(before), atol=1e-7
    )
    wide = page.pixels(first)
    page.canvas.send_keys("+")
    page.wait(lambda: page.pixels(first) != wide)
    page.canvas.send_keys(ESCAPE)
    np.testing.assert_allclose(page.points(), before)
    assert page.chosen() == -1 and page.text("details") == ""


def test_search_and_colors(page):
    search = page.browser.find_element("id", "search")
    search.send_keys("SPK1")
    assert page.text("found") == "10 of 30 speakers found"
    search.send_keys("7", ENTER)
    index = SPEAKERS.index("spk17")
    page.wait(lambda: abs(page.points()[index]) < 1e-9)
    options = page.browser.find_elements("css selector", "#column option")
    assert [o.text for o in options] == ["sex", "age", "radius", "none"]
    options[1].click()
    assert page.text("legend").startswith("20 to 25.6 (6)25.6 to 31.2 (6)")
    options[3].click()
    assert page.text("legend") == ""


def test_what_a_table_holds_is_text(browser, tmp_path):
    bad = " ".join(BAD)
    names = [*BAD, "b"]
    table = {name: {bad: name, "x": bad} for name in BAD}
    columns = list(columns_of(table, names).values())
    browser.get_log("browser")
    path = tmp_path / "disk.html"
    page = Page(browser, write_page(path, some_points(5), names, bad, columns))
    assert browser.title == page.text("title") == bad
    for _ in names:
        page.canvas.send_keys("n")
        name = names[page.chosen()]
        known = bad + name + "x" + bad if name in BAD else ""
        assert page.text("details").startswith(name + known)
    assert all(name in page.text("legend") for name in BAD)
    assert not browser.find_elements("css selector", "img")
    assert len(browser.find_elements("css selector", "script")) == 2
    assert browser.get_log("browser") == []
    text = path.read_text()
    assert text.count("</script>") == 2
    assert not re.search(r"https?:|//[a-z]|\bfetch\b|\bimport\b", text)
    with pytest.raises(InputError, match="one speaker"):
        write_page(path, some_points(1), ["a"], "t")


def test_a_head_without_radius(browser, tmp_path):
    points = some_points(12)
    radius = points.radius.new_full((12,), 1.317)
    length = points.vectors.norm(dim=1)
    points = points._replace(ratio=radius.sinh() / length, radius=radius)
    path = tmp_path / "disk.html"
    write_page(path, points, SPEAKERS[:12], "t", has_radius=False)
    page = Page(browser, path)
    page.canvas.send_keys("n")
    unit = points.vectors / length[:, None]
    cosine = (unit @ unit[page.chosen()]).numpy()
    angles = np.sort(np.degrees(np.arccos(cosine.clip(-1, 1))))[1:6]
    assert re.findall(r"spk\d\d(\d+\.\d°)", page.text("details")) == [
        f"{angle:.1f}°" for angle in angles
    ]
    assert "radius" not in page.text("column")
    assert "This head has no radius" in page.text("explanation")


def test_three_thousand_speakers(browser, tmp_path):
    names = [f"id{i:05}" for i in range(3000)]
    path = tmp_path / "disk.html"
    page = Page(browser, write_page(path, some_points(3000, 16), names, "t"))
    assert path.stat().st_size < 1.5e6
    before = page.points()
    page.browser.find_element("id", "search").send_keys("id02321", ENTER)
    page.wait(lambda: abs(page.points()[2321]) < 1e-9)
    some = slice(0, 3000, 30)
    np.testing.assert_allclose(
        all_distances(page.points()[some]),
        all_distances(before[some]),
        atol=1e-6,
    )
