"""The page in a real browser, over the real service, on a real small collection."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from page_site import HOSTILE, HOSTILE_COLOUR, HOSTILE_STEM, SAMPLES, chromium, make_collection, settled
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect
from serving import serving

from mmdata.serve.app import create_app
from mmdata.serve.limits import Access
from mmdata.storage.dataset import Dataset

KEY = "a key that is long enough"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def site(browser: Browser, folder: Path) -> Iterator[str]:
    with serving(create_app(make_collection(folder))) as client:
        yield str(client.base_url)


@pytest.fixture
def page(browser: Browser, site: str) -> Iterator[Page]:
    """A fresh tab, 1280 wide, at the first page; whatever the page itself does wrong fails the test."""
    context = browser.new_context(base_url=site, viewport={"width": 1280, "height": 860}, color_scheme="light")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(20_000)
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("console", lambda message: wrong.append(message.text) if _is_ours(message) else None)
    tab.goto("/")
    yield tab
    context.close()
    assert wrong == []


def _is_ours(message: ConsoleMessage) -> bool:
    """Not the answers with an error, which tests ask for, and not plotly's own style, which the policy refuses."""
    return message.type == "error" and not re.search("Failed to load resource|Applying inline style", message.text)


def ask(page: Page, words: str) -> None:
    page.fill("#words", words)
    page.press("#words", "Enter")
    settled(page)


def captions(page: Page, index: str) -> list[str]:
    return page.locator(f'[data-index="{index}"] .hit .caption').all_text_contents()


def asked(page: Page) -> dict[str, list[str]]:
    """What the address says."""
    return parse_qs(urlsplit(page.url).query)


def picture(folder: Path, shape: str) -> Path:
    return sorted((folder / "corpus" / shape).glob("0*.png"))[0]


def drop(page: Page, file: Path, kind: str, onto: str) -> None:
    """Drag a file of this machine over the page and let it fall."""
    data = page.evaluate_handle(
        """([bytes, name, type]) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name, { type })); return data; }""",
        [list(file.read_bytes()), file.name, kind],
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    expect(page.locator("#drop")).to_be_visible()
    page.dispatch_event(onto, "drop", {"dataTransfer": data})
    expect(page.locator("#drop")).to_be_hidden()
    settled(page)


def test_words_find_pictures_sounds_and_texts(page: Page) -> None:
    expect(page.locator("h1")).to_have_text(f"{SAMPLES} pictures, {SAMPLES} sounds and {SAMPLES} texts.")
    expect(page.locator(".hit.image")).not_to_have_count(0)
    ask(page, "two blue stars")
    assert asked(page) == {"text": ["two blue stars"]}
    assert [section.get_attribute("data-index") for section in page.locator(".answer").all()] == [
        "pictures.image",
        "sounds.audio",
        "minilm",
    ]
    assert "star" in captions(page, "minilm")[0]
    for index in ("pictures.image", "sounds.audio", "minilm"):
        shown = [float(text) for text in page.locator(f'[data-index="{index}"] .score').all_text_contents()]
        assert len(shown) == 24
        assert shown == sorted(shown, reverse=True)
    expect(page.locator(".answer .figures").first).to_contain_text(re.compile(r"24 nearest of 60 pictures · [\d.]+ ms"))
    loaded = page.locator(".hit.image img").first
    assert loaded.evaluate("async (image) => (await image.decode(), image.naturalWidth)") == 192


def test_a_sound_plays_in_the_browsers_own_player(page: Page) -> None:
    ask(page, "four rings")
    player = page.locator(".hit.audio audio").first
    seconds = player.evaluate("async (audio) => { await audio.play(); audio.pause(); return audio.duration; }")
    assert seconds == pytest.approx(1.2, abs=0.05)


def test_only_the_chosen_index_answers(page: Page) -> None:
    ask(page, "a ring")
    for name in ("Pictures", "Texts"):
        page.get_by_role("group", name="What to find").get_by_role("button", name=name).click()
        settled(page)
    assert asked(page)["in"] == ["sounds.audio"]
    expect(page.locator(".answer")).to_have_count(1)
    expect(page.locator(".hit.audio")).to_have_count(24)


def test_a_dropped_picture_finds_itself(page: Page, folder: Path) -> None:
    file = picture(folder, "ring")
    drop(page, file, "image/png", ".zone >> nth=0")
    assert captions(page, "pictures.image")[0] == file.with_suffix(".txt").read_text().strip()
    assert float(page.locator('[data-index="pictures.image"] .score').first.text_content() or 0) > 0.999
    expect(page.locator(".answer")).to_have_count(1)  # nothing else takes pictures
    page.locator("#take").click()
    expect(page.locator("#share")).to_contain_text("cannot travel in a link")


def test_a_chosen_sound_finds_itself_and_a_picture_is_refused_by_sounds(page: Page, folder: Path) -> None:
    sound = picture(folder, "ring").with_suffix(".wav")
    page.set_input_files("#file", sound)
    settled(page)
    assert captions(page, "sounds.audio")[0] == sound.with_suffix(".txt").read_text().strip()
    drop(page, picture(folder, "ring"), "image/png", ".zone >> nth=0")
    page.get_by_role("button", name="Sounds").first.click()
    expect(page.locator('[data-index="sounds.audio"] .trouble')).to_contain_text("cannot be asked with pictures")


def test_a_pasted_picture_is_added_and_weighed(page: Page, folder: Path) -> None:
    ask(page, "a ring")
    page.evaluate(
        """(bytes) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "pasted.png", { type: "image/png" }));
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true })); }""",
        list(picture(folder, "star").read_bytes()),
    )
    chip = page.get_by_role("group", name="more like pasted.png")
    expect(chip).to_be_visible()
    with page.expect_request("**/search") as sent:
        chip.get_by_role("spinbutton").fill("0.25")
        chip.get_by_role("spinbutton").press("Enter")
    terms = sent.value.post_data_json["terms"]
    assert terms[0] == {"text": "a ring"}
    assert terms[1]["weight"] == 0.25
    assert list(terms[1]) == ["image", "weight"]


def test_what_is_neither_picture_nor_sound_is_said(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "notes.docx"
    file.write_bytes(b"PK")
    page.set_input_files("#file", file)
    expect(page.locator("#says")).to_contain_text("notes.docx is neither a picture nor a sound")


def test_more_like_this_and_less_like_that(page: Page) -> None:
    ask(page, "a star")
    first, second = (page.locator('[data-index="pictures.image"] .hit').nth(place) for place in (0, 1))
    caption = first.locator(".caption").text_content()
    less = int(second.get_attribute("data-id") or -1)
    second.hover()
    second.get_by_role("button", name="Add as less").click()
    settled(page)
    assert asked(page)["text"] == ["a star"]
    assert asked(page)["key"][0].endswith("::-0.5")
    kept = [hit.get_attribute("data-id") for hit in page.locator('[data-index="pictures.image"] .hit').all()]
    assert str(less) not in kept[:5]
    first = page.locator('[data-index="pictures.image"] .hit', has_text=caption).first
    first.hover()
    first.get_by_role("button", name="More like this").click()
    settled(page)
    assert captions(page, "pictures.image")[0] == caption
    assert list(asked(page)) == ["key"]


def test_words_with_a_minus_are_less_like(page: Page) -> None:
    ask(page, "a star")
    page.fill(".also", "-dotted")
    page.press(".also", "Enter")
    settled(page)
    assert asked(page)["text"] == ["a star", "dotted::-0.5"]
    page.get_by_role("button", name="less like this; turn to more").click()
    assert asked(page)["text"] == ["a star", "dotted::0.5"]
    page.get_by_role("button", name="Remove dotted").click()
    assert asked(page)["text"] == ["a star"]


def test_filters_keep_leave_out_and_bound(page: Page) -> None:
    page.get_by_role("button", name="folder: star").click()
    settled(page)
    expect(page.locator(".answer .figures").first).to_contain_text("that pass, in no order")  # no query yet
    ask(page, "green")
    assert all("star" in text for text in captions(page, "pictures.image"))
    page.get_by_role("button", name="folder: only star").click()
    settled(page)
    assert asked(page)["where"] == ["folder!=star"]
    assert not any("star" in text for text in captions(page, "minilm"))
    page.get_by_label("count, from").fill("3")
    page.get_by_label("count, from").press("Enter")
    settled(page)
    assert asked(page)["where"] == ["folder!=star", "count>=3"]
    shown = captions(page, "minilm")
    assert shown
    assert all(re.search("three|trio|four", text) for text in shown)


def test_nothing_found_offers_to_clear_the_filters(page: Page) -> None:
    page.goto("/?text=a+star&where=colour%3Dred&where=colour%3Dblue")
    settled(page)
    expect(page.locator(".empty")).to_have_count(3)
    page.locator(".empty button").first.click()
    settled(page)
    expect(page.locator(".hit.image")).to_have_count(24)


def test_back_and_forward_and_a_shared_address_show_the_same(page: Page) -> None:
    ask(page, "a ring")
    rings = captions(page, "pictures.image")
    ask(page, "a blue star")
    stars = captions(page, "pictures.image")
    assert stars != rings
    page.go_back()
    expect(page.locator("#words")).to_have_value("a ring")
    assert captions(page, "pictures.image") == rings
    page.go_forward()
    assert captions(page, "pictures.image") == stars
    page.goto(page.url)
    settled(page)
    expect(page.locator("#words")).to_have_value("a blue star")
    assert captions(page, "pictures.image") == stars


def test_an_exact_number_in_an_address_is_both_ends_of_its_range(page: Page) -> None:
    page.goto("/?text=a+star&key=circle/nothing::0.5&where=count%3D2&in=minilm")
    expect(page.locator(".trouble")).to_contain_text("circle/nothing")
    page.get_by_role("button", name="Remove circle/nothing").click()
    settled(page)
    assert all(re.search("two|pair", text) for text in captions(page, "minilm"))
    expect(page.get_by_label("count, from")).to_have_value("2")
    page.get_by_label("count, to").fill("3")
    page.get_by_label("count, to").press("Enter")
    settled(page)
    assert asked(page)["where"] == ["count>=2", "count<=3"]


def test_a_link_with_an_upload_of_another_tab_says_so(page: Page) -> None:
    page.goto("/?image=123456")
    expect(page.locator("#says")).to_contain_text("add the file again")


def test_what_is_typed_before_the_indexes_are_known_is_asked_then(page: Page) -> None:
    held: list[Route] = []
    page.route("**/indexes", lambda route: held.append(route))  # playwright cannot mark a builtin
    page.goto("/")
    page.fill("#words", "a ring")
    page.press("#words", "Enter")
    expect(page.locator("#targets button")).to_have_count(0)
    page.wait_for_function("document.title.startsWith('a ring')")
    held[0].continue_()
    expect(page.locator(".hit.image")).to_have_count(24)


def test_the_drawer_shows_everything_and_the_keys_walk(page: Page) -> None:
    page.keyboard.press("/")
    expect(page.locator("#words")).to_be_focused()
    page.keyboard.type("a star")
    page.keyboard.press("Enter")
    settled(page)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    opens = page.locator('[data-index="pictures.image"] .open')
    expect(opens.nth(1)).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(opens.nth(6)).to_be_focused()  # five in a row
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    drawer = page.locator("#drawer")
    expect(drawer.locator("img")).to_be_visible()
    expect(drawer.locator("audio")).to_be_visible()
    said = captions(page, "pictures.image")
    expect(drawer.locator(".caption")).to_have_text(said[1])
    facts = dict(zip(*(drawer.locator(tag).all_text_contents() for tag in ("dt", "dd")), strict=True))
    assert {"colour", "count", "folder", "key", "id", "pictures.image"} <= set(facts)
    assert facts["pictures.image"].endswith("hit 2")
    assert facts["key"].startswith(facts["folder"])
    page.keyboard.press("ArrowRight")
    expect(drawer.locator(".caption")).to_have_text(said[2])
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    assert "open" not in asked(page)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_contain_text("more like the hit in focus")


def test_an_address_opens_its_sample(page: Page) -> None:
    page.goto("/?open=7")
    expect(page.locator("#drawer dl").last).to_contain_text("id7")
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).to_be_hidden()
    page.goto("/?open=999999")
    expect(page.locator("#drawer .trouble")).to_contain_text("999999")


def test_hostile_words_are_words(page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    ask(page, HOSTILE)
    texts = captions(page, "minilm")
    assert HOSTILE in texts
    hit = page.locator('[data-index="minilm"] .hit', has_text="window.pwned=1").first
    hit.locator(".open").click()
    drawer = page.locator("#drawer")
    expect(drawer.locator(".caption")).to_have_text(HOSTILE)
    expect(drawer).to_contain_text(HOSTILE_COLOUR)
    expect(drawer).to_contain_text(HOSTILE_STEM)
    expect(drawer).to_contain_text("</legend><b>value")
    page.keyboard.press("Escape")
    page.get_by_role("button", name=f"colour: {HOSTILE_COLOUR}").click()
    settled(page)
    assert captions(page, "minilm") == [HOSTILE]
    page.locator("#take").click()
    expect(page.locator('[data-code="Python"]')).to_contain_text("window.pwned=1")
    page.goto("/?view=map&colour=colour")
    expect(page.get_by_role("group", name="Values")).to_contain_text(HOSTILE_COLOUR)
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src='x'], legend b, #drawer b, svg[onload]").count() == 0
    assert not [url for url in requests if url.endswith("/x")]


def test_the_map_is_lassoed_and_what_is_selected_is_saved(page: Page, tmp_path: Path) -> None:
    assert page.evaluate("window.Plotly") is None  # 4.8 MB that only a map needs
    ask(page, "a star")
    page.locator("#view-map").click()
    page.locator("#colour").select_option("folder")
    points = page.locator("#plot .points path")
    expect(points).to_have_count(SAMPLES + 24)  # and a ring around each hit
    box = page.locator("#plot .draglayer .xy .drag").first.bounding_box()
    assert box is not None
    left, top, right, bottom = box["x"] + 4, box["y"] + 4, box["x"] + box["width"] - 4, box["y"] + box["height"] - 4
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(x, y, steps=6)
    page.mouse.up()
    expect(page.locator("#selection h2")).to_have_text(f"{SAMPLES} pictures selected")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as csv").click()
    saved.value.save_as(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["id"]) for row in rows) == list(range(SAMPLES))
    assert HOSTILE in [row["caption"] for row in rows]
    page.get_by_role("button", name="Clear", exact=True).click()
    page.get_by_role("group", name="Values").get_by_role("button", name="star").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as jsonl").click()
    saved.value.save_as(tmp_path / "stars.jsonl")
    stars = [json.loads(line) for line in (tmp_path / "stars.jsonl").read_text().splitlines()]
    assert stars
    assert {row["folder"] for row in stars} == {"star"}
    assert len(stars) == sum(row["folder"] == "star" for row in rows)


@pytest.mark.parametrize("language", ["curl", "Python"])
def test_what_is_copied_runs_and_finds_the_same(page: Page, language: str) -> None:
    page.goto("/?text=a+star's+%22ring%22&text=blue::-0.5&in=pictures.image&where=count%3E%3D2&k=12")
    settled(page)
    page.locator("#take").click()
    page.get_by_role("button", name=f"Copy {language}").click()
    code = page.evaluate("navigator.clipboard.readText()")
    run = [sys.executable, "-c", code] if language == "Python" else ["bash", "-c", code]
    printed = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    shown = captions(page, "pictures.image")
    assert len(shown) == 12
    if language == "curl":
        assert [hit["caption"] for hit in json.loads(printed)["answers"][0]["hits"]] == shown
    else:
        assert all(line.endswith(text) for line, text in zip(printed.splitlines(), shown, strict=True))


def test_a_service_that_fails_is_said_and_asked_again(page: Page) -> None:
    page.route("**/search", lambda route: route.abort())
    ask(page, "a star")
    expect(page.locator(".trouble").first).to_contain_text("does not answer")
    page.unroute("**/search")
    page.locator(".trouble button").first.click()
    settled(page)
    expect(page.locator(".hit.image")).to_have_count(24)
    page.goto("/?text=a+star&where=nothing%3D1&in=pictures.image")
    expect(page.locator(".trouble")).to_contain_text("nothing")  # the service's own words name the field
    page.get_by_role("button", name="Clear the filters").click()
    settled(page)
    expect(page.locator(".hit.image")).to_have_count(24)


def test_an_index_that_cannot_be_opened_is_named_with_its_reason(
    browser: Browser, site: str, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder / "dataset", tmp_path / "copy")
    (tmp_path / "copy/indexes/minilm/index.json").write_text("{")
    with (
        serving(create_app(Dataset.open(str(tmp_path / "copy")))) as client,
        browser.new_context(base_url=str(client.base_url)) as context,
    ):
        tab = context.new_page()
        tab.goto("/?text=a+star")
        settled(tab)
        expect(tab.locator(".problem")).to_have_text(re.compile("^minilm cannot be opened: .*index.json"))
        expect(tab.locator(".hit.image")).to_have_count(24)
        assert [button.text_content() for button in tab.locator(".target").all()] == ["pictures", "sounds"]


def test_a_locked_service_asks_for_its_key_once(browser: Browser, site: str, folder: Path) -> None:
    app = create_app(Dataset.open(str(folder / "dataset")), Access(api_key=KEY))
    with serving(app) as client, browser.new_context(base_url=str(client.base_url)) as context:
        tab = context.new_page()
        tab.goto("/?where=folder%3Dstar")
        tab.get_by_label("The API key of this service:").fill("a wrong one")
        tab.keyboard.press("Enter")
        tab.get_by_label("That key is not right. The API key:").fill(KEY)
        tab.keyboard.press("Enter")
        settled(tab)
        image = tab.locator(".hit.image img").first
        expect(image).to_have_attribute("src", re.compile("^blob:"))  # a tag sends no key, so the page fetched it
        assert image.evaluate("async (image) => (await image.decode(), image.naturalWidth)") == 192
        assert tab.evaluate("localStorage.length + document.cookie.length") == 0
        assert KEY not in tab.url
        tab.reload()
        settled(tab)
        expect(tab.locator(".hit.image").first).to_be_visible()


def test_dark_is_the_systems_choice_or_ones_own(page: Page) -> None:
    def ground() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light = ground()
    page.emulate_media(color_scheme="dark")
    dark = ground()
    assert light != dark
    page.locator("#theme").click()
    assert ground() == light
    page.reload()
    assert ground() == light
    page.locator("#theme").click()
    page.emulate_media(color_scheme="light")
    assert ground() == dark


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (element) => {
    const colour = rgba(getComputedStyle(element).backgroundColor);
    return colour[3] === 255 || !element.parentElement ? colour : ground(element.parentElement);
  };
  const says = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const seen = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  return [...document.querySelectorAll("body *")].filter((one) => says(one) && seen(one)).map((one) => {
    const ends = [light(rgba(getComputedStyle(one).color)), light(ground(one))].sort((a, b) => b - a);
    return [(ends[0] + 0.05) / (ends[1] + 0.05), one.className || one.tagName, one.textContent.slice(0, 30)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_the_contrast_of_wcag_aa(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for address in ("/", "/?text=a+star&text=red::-1&text=b::2&where=colour%3Dblue&where=folder!%3Dring", "/?open=3"):
        page.goto(address)
        settled(page)
        measured = page.evaluate(CONTRASTS)
        assert len(measured) > 20
        assert [entry for entry in measured if entry[0] < 4.5] == []


NAMELESS = """() => {
  const label = (one) => document.getElementById(one.getAttribute("aria-labelledby"));
  const named = (one) => one.ariaLabel || one.labels?.length || one.textContent.trim() || label(one);
  const all = document.querySelectorAll("button, input, select, audio, a, dialog[open], [role=group]");
  return [...all].filter((one) => one.checkVisibility() && !named(one)).map((one) => one.outerHTML);
}"""


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_sticks_out_and_everything_has_a_name(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    for address in ("/", "/?text=a+star&text=a+ring::-0.5", "/?view=map&colour=count", "/?open=3"):
        page.goto(address)
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(NAMELESS) == []
    if width == 390:
        page.goto("/?text=a+star")
        settled(page)
        page.locator("#show-filters").click()
        page.get_by_role("button", name="folder: star").click()
        page.get_by_role("button", name="Show what is left").click()
        expect(page.locator("#filters")).to_be_hidden()
        expect(page.locator("#filter-count")).to_have_text("1")
