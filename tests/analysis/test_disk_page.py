"""The page, in a real browser: Debian's chromium and chromium-driver."""

import json
import re
import shutil

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from speechbrain_hyperbolic.analysis.columns import columns_of
from speechbrain_hyperbolic.analysis.disk_page import write_page
from speechbrain_hyperbolic.analysis.figures import looks
from speechbrain_hyperbolic.analysis.layout import distances
from tests.analysis.runs import SPEAKERS, some_points

SECONDS_TO_WAIT = 20
BAD = (
    "</script><script>document.title=1</script>",
    '"><img src=x onerror="document.title=1">',
    "<!--",
    "'\"&amp;\\u003c\u2028\\",
)


def disk_distance(z):
    gap = abs(z[:, None] - z) ** 2
    inside = 1 - abs(z) ** 2
    return np.arccosh(1 + 2 * gap / (inside[:, None] * inside))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is absent"
    )
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("chromium or chromium-driver is absent: apt-get install")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("--headless", "--no-sandbox", "--disable-gpu"),
        *("--no-first-run", "--disable-background-networking"),
        "--window-size=1100,900",
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

        return WebDriverWait(self.browser, SECONDS_TO_WAIT, 0.05).until(
            lambda _: condition()
        )

    def text(self, name):
        return self.run(
            "return document.getElementById(arguments[0]).textContent", name
        )

    def points(self):
        return np.array(self.run("return disk.points()")) @ [1, 1j]

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

    def pixels(self, index):
        return self.run("return disk.pixels(arguments[0])", index)

    def colours(self, indices):
        """Of the pixels where points are: uint8, shape [N, 4]."""
        # Read once: at the second time the browser warns.
        return self.run(
            "const c = arguments[0], r = devicePixelRatio;"
            "const all = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data;"
            "return arguments[1].map((i) => {"
            "  const [x, y] = disk.pixels(i).map((v) => Math.floor(v * r));"
            "  return [...all.slice(4 * (y * c.width + x)).slice(0, 4)]; })",
            self.canvas,
            indices,
        )


@pytest.fixture
def page(browser, tmp_path, table):
    points = some_points()
    columns = columns_of(table, SPEAKERS)
    path = tmp_path / "disk.html"
    write_page(path, points, SPEAKERS, "A title", columns, cap=1.317)
    browser.get_log("browser")
    page = Page(browser, path)
    page.true, page.square, page.columns = points, distances(points), columns
    yield page
    assert browser.get_log("browser") == []


def test_points_are_drawn_at_their_radius_in_their_colour(page):
    z = page.points()
    np.testing.assert_allclose(
        2 * np.arctanh(abs(z)), page.true.radius, atol=1e-5
    )
    groups = page.columns["sex"].groups()
    kinds = looks(groups)
    wanted = np.empty((30, 3))
    for name, which in groups.items():
        wanted[which] = 255 * np.array(to_rgb(kinds[name][0]))
    seen = np.array(page.colours(list(range(30))))[:, :3]
    hits = abs(seen - wanted).max(1) < 3
    assert hits.sum() >= 27  # a point may be behind another one
    assert page.text("legend") == "f (15)m (14)unknown (1)"
    assert page.browser.title == "A title"


def test_hover_says_what_is_true(page):
    index = 4
    page.pointer(*page.pixels(index)).perform()
    page.wait(lambda: SPEAKERS[index] in page.text("tip"))
    order = page.square[index].argsort()[1:6]
    nearest, gap = SPEAKERS[order[0]], page.square[index, order[0]]
    assert page.text("tip") == (
        f"{SPEAKERS[index]}, sex {'fm'[index % 2]}, age {20 + index}, "
        f"radius {float(page.true.radius[index]):.3f}, "
        f"nearest {nearest} ({gap:.3f})"
    )
    listed = re.findall(r"(spk\d\d)(\d\.\d{3})", page.text("details"))
    assert listed == [
        (SPEAKERS[j], f"{page.square[index, j]:.3f}") for j in order
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
        disk_distance(after), disk_distance(before), atol=1e-9
    )
    assert np.hypot(*np.subtract(page.pixels(3), (x - 50, y + 15))) < 2
    assert page.run("return disk.chosen()") == -1


def test_click_moves_a_speaker_to_the_origin(page):
    before = page.points()
    page.pointer(*page.pixels(7)).click().perform()
    page.wait(lambda: abs(page.points()[7]) < 1e-9)
    after = page.points()
    np.testing.assert_allclose(
        disk_distance(after), disk_distance(before), atol=1e-9
    )
    # A translation along the line to the origin turns no line through it.
    np.testing.assert_allclose(
        after, (before - before[7]) / (1 - np.conj(before[7]) * before)
    )
    size = page.run("return arguments[0].clientWidth", page.canvas)
    for index in range(30):
        assert all(0 <= v <= size for v in page.pixels(index))
    page.browser.find_element("id", "reset").click()
    np.testing.assert_allclose(page.points(), before)


def test_a_thousand_moves_add_up_to_no_error(page):
    before = page.points()
    page.run(
        "let m = disk.translation([0, 0]);"
        "for (let i = 0; i < 1000; i++) {"
        "  const t = [0.9 * Math.cos(i), 0.9 * Math.sin(i)];"
        "  const back = [-t[0], -t[1]];"
        "  m = disk.compose(disk.translation(t), m);"
        "  m = disk.compose(disk.translation(back), m); }"
        "disk.setView(disk.compose(disk.translation([0.3, 0.4]), m))"
    )
    np.testing.assert_allclose(
        disk_distance(page.points()), disk_distance(before), atol=1e-6
    )


def test_distance_is_that_of_the_space(page):
    z = page.points()
    found = page.run(
        "const p = disk.points();"
        "return p.map((a) => p.map((b) => disk.distance(a, b)))"
    )
    np.testing.assert_allclose(found, disk_distance(z), atol=1e-7)


def test_by_the_keyboard_alone(page):
    before = page.points()
    page.canvas.send_keys("n")
    first = page.run("return disk.chosen()")
    assert page.text("details").startswith(SPEAKERS[first])
    page.canvas.send_keys("n", "p")
    assert page.run("return disk.chosen()") == first
    page.canvas.send_keys("\ue007")  # Enter
    page.wait(lambda: abs(page.points()[first]) < 1e-9)
    page.canvas.send_keys("\ue012")  # left: the disk goes right
    z = page.points()[first]
    assert 2 * np.arctanh(z) == pytest.approx(0.25)
    wide = page.pixels(first)
    page.canvas.send_keys("+")
    page.wait(lambda: page.pixels(first) != wide)
    page.canvas.send_keys("\ue00c")  # Escape
    np.testing.assert_allclose(page.points(), before)
    assert page.run("return disk.chosen()") == -1
    assert page.text("details") == ""


def test_search_and_colours(page):
    search = page.browser.find_element("id", "search")
    search.send_keys("SPK1")
    assert page.text("found") == "10 of 30 speakers found"
    search.send_keys("7\ue007")
    index = SPEAKERS.index("spk17")
    page.wait(lambda: abs(page.points()[index]) < 1e-9)
    options = page.browser.find_elements("css selector", "#column option")
    assert [o.text for o in options] == ["sex", "age", "radius", "none"]
    options[1].click()
    assert page.text("low") == "20" and page.text("high") == "48"
    assert page.text("legend") == "unknown (1)"
    options[3].click()
    assert page.text("legend") == ""


@pytest.mark.parametrize("bad", BAD)
def test_what_a_table_holds_is_text(browser, tmp_path, bad):
    names = [bad, "b", "c"]
    table = {name: {bad: bad, "x": name} for name in names[:2]}
    path = tmp_path / "disk.html"
    browser.get_log("browser")
    write_page(
        path, some_points(3), names, bad, columns_of(table, names), cap=None
    )
    page = Page(browser, path)
    assert browser.title == bad
    assert page.text("title") == bad
    page.canvas.send_keys("n", "n", "n")
    for _ in range(3):
        page.canvas.send_keys("n")
        if page.run("return disk.chosen()") == 0:
            break
    assert page.text("details").startswith(bad + bad + bad)
    assert bad in page.text("legend")
    assert not browser.find_elements("css selector", "img")
    assert len(browser.find_elements("css selector", "script")) == 2
    assert browser.get_log("browser") == []


def test_a_head_without_radius(browser, tmp_path):
    points = some_points(12)
    radius = points.radius.new_full((12,), 1.317)
    length = points.vectors.norm(dim=1)
    points = points._replace(stretch=radius.sinh() / length, radius=radius)
    path = tmp_path / "disk.html"
    write_page(path, points, SPEAKERS[:12], has_radius=False)
    page = Page(browser, path)
    page.canvas.send_keys("n")
    chosen = page.run("return disk.chosen()")
    unit = points.vectors / length[:, None]
    cosine = (unit @ unit[chosen]).numpy()
    angles = np.degrees(np.arccos(cosine.clip(-1, 1)))
    expected = [f"{angle:.1f}°" for angle in np.sort(angles)[1:6]]
    listed = re.findall(r"spk\d\d(\d+\.\d°)", page.text("details"))
    assert listed == expected
    assert "radius" not in page.text("column")
    assert "This head has no radius" in page.text("truth")


def test_six_thousand_speakers(browser, tmp_path):
    points = some_points(6000, 16)
    names = [f"id{i:05}" for i in range(6000)]
    path = tmp_path / "disk.html"
    write_page(path, points, names)
    assert path.stat().st_size < 3e6
    page = Page(browser, path)
    before = page.points()
    assert len(before) == 6000
    page.browser.find_element("id", "search").send_keys("id04321\ue007")
    page.wait(lambda: abs(page.points()[4321]) < 1e-9)
    some = slice(0, 6000, 60)
    np.testing.assert_allclose(
        disk_distance(page.points()[some]),
        disk_distance(before[some]),
        atol=1e-6,
    )


def test_phone_and_dark(browser, tmp_path, table):
    path = tmp_path / "disk.html"
    write_page(path, some_points(), SPEAKERS, "t", columns_of(table, SPEAKERS))
    grounds = {}
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {
                "width": 390,
                "height": 800,
                "deviceScaleFactor": 2,
                "mobile": True,
            },
        )
        page = Page(browser, path)
        wide = page.run("return document.documentElement.scrollWidth")
        assert wide <= 390, "the page has to be scrolled sideways"
        grounds[scheme] = page.run(
            "return getComputedStyle(document.body).backgroundColor"
        )
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert grounds["light"] != grounds["dark"]


def test_file_asks_no_network(tmp_path):
    path = tmp_path / "disk.html"
    write_page(path, some_points(4), ["a", "b", "c", "</script>"])
    text = path.read_text()
    assert not re.search(r"https?:|//[a-z]|\bfetch\b|\bimport\b", text)
    assert text.count("</script>") == 2
    data = re.search(r'id="data">(.*?)</script>', text)[1]
    assert json.loads(data)["names"] == ["a", "b", "c", "</script>"]
