"""A person tries images: chooses, drops, pastes, takes samples, moves the limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys

from app.tasks.base import Drawing
from app.web.pages import curl
from tests.browser.page import Page

NEVER_ANSWERED = "window.fetch = () => new Promise(() => {});"


def scores(page: Page) -> list[float]:
    """The scores in the list beside the picture, in per cent."""
    return [float(each.text.rstrip("%")) for each in page.all("#answer .row-score")]


def test_a_sample_gives_boxes_with_one_press(page: Page) -> None:
    page.take_sample()

    labels = page.see_boxes()
    known = page.script("return fetch('/v1/models').then((answer) => answer.json())")["models"]
    assert set(labels) <= {label for model in known for label in model["labels"]}
    assert sorted(labels) == sorted(each.text for each in page.all("#answer .row-label"))
    assert page.see("#answer h2").text == f"{len(labels)} object{'' if len(labels) == 1 else 's'}"


def test_an_answer_says_which_model_and_how_long(page: Page) -> None:
    page.take_sample()
    page.see_boxes()

    model = page.script("return fetch('/v1/models').then((answer) => answer.json())")["models"]
    shown = page.see("#answer").text
    assert any(each["name"] in shown and each["digest"][:19] in shown for each in model)
    assert "Demonstration model: trained on rendered scenes" in shown
    assert [each.text for each in page.all("#answer .timing dt")] == ["decode", "queue", "model", "in all"]


def test_several_chosen_files_are_each_answered(page: Page, tmp_path: Path) -> None:
    paths = page.save_samples(tmp_path)[:3]

    page.choose(*paths)

    page.until(lambda: len(page.all(".frame-button .badge:not(.is-waiting)")) == 3, "three answers")
    page.all(".frame-button")[2].click()
    assert page.see(".picture-name").text == paths[2].name
    page.see("#stage img[src^=blob]")


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_file_can_be_pasted_and_dropped(page: Page, kind: str) -> None:
    was_taken = page.transfer(kind, page.sample_names()[0])

    assert was_taken
    assert page.see_boxes()


def test_a_dragged_file_is_invited(page: Page) -> None:
    page.transfer("dragover", page.sample_names()[0])

    page.see("#stage.is-dragging")


def test_a_photograph_of_several_megabytes_is_answered(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "photograph.jpg"
    Image.effect_noise((2000, 1500), 80).save(path, quality=95)

    page.choose(path)

    page.until(lambda: page.all("#answer .timing dt"), "an answer")
    assert path.stat().st_size > 1_000_000
    assert page.see(".picture-size").text == "2000 × 1500"


def test_the_same_file_can_be_chosen_twice(page: Page, tmp_path: Path) -> None:
    path = page.save_samples(tmp_path)[0]

    page.choose(path)
    page.see_boxes()
    page.choose(path)

    page.until(lambda: len(page.all(".frame-button .badge")) == 2, "two frames")


def test_removing_all_pictures_leads_back_to_the_start(page: Page, tmp_path: Path) -> None:
    page.choose(*page.save_samples(tmp_path)[:2])
    page.see_boxes()

    page.see("#filmstrip button", "Remove all").click()

    page.see("#answer h2", "No image yet")
    page.see(".drop-title", "Drop images here")


def test_a_picture_is_named_with_bars(page: Page) -> None:
    page.take_sample()
    page.see_boxes()

    page.task("classify")

    page.see("#answer .summary", "Most likely, with")
    assert len(page.all("#answer .prediction .bar")) > 1
    assert not page.all("#stage .box")


def test_fewer_labels_can_be_wished_for(page: Page) -> None:
    page.task("classify")
    page.take_sample()
    page.see("#answer .prediction")

    page.set("top_k", "2")

    page.until(lambda: len(page.all("#answer .prediction")) == 2, "two labels")


def test_a_higher_threshold_filters_before_the_server_has_answered(page: Page) -> None:
    page.take_sample()
    page.see_boxes()
    page.set("score_threshold", "0.02")
    page.until(lambda: min(scores(page)) < 40, "weak detections")
    before = scores(page)
    page.script(NEVER_ANSWERED)

    page.set("score_threshold", "0.5")

    expected = [score for score in before if score >= 50]
    page.until(lambda: scores(page) == expected, "only detections of 50% and more")


def test_a_moving_slider_asks_only_when_it_rests(page: Page) -> None:
    page.take_sample()
    page.see_boxes()
    page.requests()

    page.script("""
      const slider = document.querySelector('[data-for="score_threshold"]');
      for (let step = 0; step < 30; step++) {
        slider.value = 0.3 + step / 1000;
        slider.dispatchEvent(new Event("input", { bubbles: true }));
      }
    """)

    page.see(".fold summary", "Answer as JSON").click()
    page.until(lambda: page.all(".progress[hidden]"), "the answer")
    asked = [address for address in page.requests() if address.endswith("/v1/detect")]
    assert len(asked) == 1


def test_the_slider_and_its_figure_follow_each_other(page: Page) -> None:
    slider = page.see('[data-for="score_threshold"]')

    slider.send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert page.see("#option-score_threshold").get_attribute("value") == "0.01"
    page.set("score_threshold", "0.75")
    assert slider.get_attribute("value") == "0.75"


def test_least_sizes_leave_small_boxes_out(page: Page) -> None:
    page.take_sample()
    page.see_boxes()
    page.see(".limits summary").click()

    page.set("min_width", "5000")

    page.see("#answer .notice", "Nothing found")
    assert "at least 5000 × 0 px" in page.see("#limits-summary").text
    page.see("#reset").click()
    assert page.see_boxes()


def test_pointing_at_a_row_lets_its_box_stand_out(page: Page) -> None:
    page.take_sample()
    page.see_boxes()

    page.all("#answer .row")[0].click()

    assert len(page.all("#stage .box.is-chosen")) == 1


def test_curl_command_is_copied_and_the_same_in_both_languages(page: Page) -> None:
    page.take_sample()
    page.see_boxes()
    page.set("score_threshold", "0.3")
    page.see(".fold summary", "The same with curl").click()

    shown = page.see(".fold code", "score_threshold=0.3").text

    name, version = str(page.see("#model").get_attribute("value")).split("@")
    params = {"model": name, "version": version, "score_threshold": "0.3"}
    assert shown == curl.command(f"{page.base_url}/v1/detect", [page.sample_names()[0]], params)
    page.see(".copy", "Copy command").click()
    page.see(".copy", "Copied")


@pytest.mark.parametrize(
    "name", ["a b.jpg", "it's.jpg", 'say "no".jpg', "a,b;c.jpg", "back\\slash.jpg", "é.jpg", "-x.jpg"]
)
def test_strange_file_names_are_quoted_alike(page: Page, name: str) -> None:
    script = """
      const [name, done] = arguments;
      import("/static/js/curl.js").then((curl) => done(curl.command("http://cask/v1/detect", name, {top_k: 3})));
    """

    written = page.driver.execute_async_script(script, name)

    assert written == curl.command("http://cask/v1/detect", [name], {"top_k": 3})


SHOWN = {
    "labels": ([{"label": "cone", "score": 0.75}], "cone, 75.0%", "cone\nMost likely, with 75.0%\ncone\n75.0%"),
    "mask": (
        [{"label": "road", "area": 0.5, "colour": "#3c9ef2"}],
        "road, 50.0% of the picture",
        "road\n50.0% of the picture\nroad\n50.0%",
    ),
    "vector": ([0.6, 0, -0.8], "A vector of 3 numbers", "A vector of 3 numbers\n0.6, 0, -0.8"),
    "table": (
        [{"label": "cone", "count": 3, "box": {"x_min": 1}, "far_at": 0.71637928, "sides": [1, 2.5]}],
        "cone, count 3, far at 0.71638, sides [1, 2.5]",
        "cone\ncone\ncount 3, far at 0.71638, sides [1, 2.5]",
    ),
}


@pytest.mark.parametrize("drawing", [name for name in get_args(Drawing) if name != "boxes"])
def test_answers_of_every_task_are_drawn(page: Page, drawing: str) -> None:
    """Also of those that no model here can be asked: how they look is the task's ``drawing``."""
    rows, words, text = SHOWN[drawing]
    script = """
      const [drawing, sent, done] = arguments;
      const rows = JSON.parse(sent);
      import("/static/js/answer.js").then(({ Answer, inWords }) => {
        const panel = document.querySelector("#answer");
        const answer = { drawing, rows: "rows", results: [{ rows }], timings: {}, milliseconds: 1, body: {} };
        const context = { detections: [], labels: [], options: { fields: {} }, url: "" };
        new Answer(panel, {}).show({ state: "done", name: "a.jpg", answer }, context);
        done([inWords(answer), panel.firstChild.innerText.replace(/\\n+/g, "\\n")]);
      });
    """

    assert page.driver.execute_async_script(script, drawing, json.dumps(rows)) == [words, text]
    # An answer may also hold nothing.
    nothing, _ = page.driver.execute_async_script(script, drawing, "[]")
    assert nothing == {"labels": "no label", "vector": "A vector of 0 numbers"}.get(drawing, "nothing found")
