"""Edits, injections and swapped group names: what each changes in a text, and what it leaves alone."""

from __future__ import annotations

import random
import re

import pytest

from common.models.prompt import TAIL
from sbic_llama.data.corpus import clean, load_splits
from sbic_llama.data.features import FEATURES
from sbic_llama.robustness.group_swaps import FAMILIES, INVENTED, Lexicon, swap_groups
from sbic_llama.robustness.perturbations import (
    CLEANED,
    HARMLESS,
    HOMOGLYPHS,
    INJECTIONS,
    LEETSPEAK,
    NEUTRAL,
    OBFUSCATIONS,
    PLACES,
    ZERO_WIDTH,
    edited,
    injected,
)

POST = "RT @user12: don't say \"the florbs are lazy\" & rude, it's a lie! https://example.org/12 #monday"
EDITS = (*OBFUSCATIONS, *HARMLESS, *CLEANED)
BY_NAME = {edit.name: edit for edit in EDITS}


@pytest.fixture(scope="module")
def posts(miniature) -> list[str]:
    odd = [
        "a",
        "?!",
        "\U0001f600",
        "@user",
        "https://example.org",
        "a b",
        "\u200b",
        "ß",
        "AAAA",
        "x" * 300,
        "...",
        "1 2",
    ]
    return [post.text for post in load_splits(data_dir=miniature / "SBIC.v2")["test"].posts[:80]] + [POST, *odd]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_an_edit_depends_on_seed_and_post_alone_and_never_empties_a_post(edit, posts):
    first = [edited(edit, post, 3) for post in posts]
    assert first == [edited(edit, post, 3) for post in reversed(posts)][::-1]
    assert all(text and text == clean(text) for text in first)
    if edit.name not in ("leetspeak", "upper case", "full stop", "exclamation mark", "quotation marks"):
        changed = [edited(edit, post, 4) for post in posts]
        assert (changed != first) == (edit.name != "typographic quotes" and edit not in CLEANED)


def test_obfuscations_do_not_change_what_a_reader_sees(posts):
    back = {double: letter for letter, double in HOMOGLYPHS.items()}
    assert len(back) == len(HOMOGLYPHS)
    digits = str.maketrans(LEETSPEAK | {letter.upper(): digit for letter, digit in LEETSPEAK.items()})
    touched = {edit.name: 0 for edit in OBFUSCATIONS}
    for post in posts:
        text = {edit.name: edited(edit, post, 0) for edit in OBFUSCATIONS}
        assert "".join(back.get(letter, letter) for letter in text["homoglyphs"]) == post
        assert re.sub(f"[{ZERO_WIDTH}]", "", text["zero-width characters"]) == re.sub(f"[{ZERO_WIDTH}]", "", post)
        assert text["leetspeak"].translate(digits) == post.translate(digits)
        for name in ("letter spacing", "spaces removed"):
            assert text[name].replace(" ", "") == post.replace(" ", "")
        for before, after in zip(post.split(), text["letters swapped"].split(), strict=True):
            assert sorted(before) == sorted(after)
            assert (before[0], before[-1]) == (after[0], after[-1])
        for name in ("upper case", "random case"):
            assert text[name].casefold() == post.casefold()
        for name in touched:
            touched[name] += text[name] != post
    assert all(count > 70 for count in touched.values()), touched


def test_half_of_the_words_are_changed_and_no_mention_tag_or_link(posts):
    for name in ("homoglyphs", "zero-width characters", "leetspeak", "letter spacing", "letters swapped"):
        for seed in range(5):
            text = edited(BY_NAME[name], POST, seed)
            assert {"@user12:", "https://example.org/12", "#monday"} <= set(text.split())
    post = "florbs drevins quillans tessels ombrians zanthi"
    for name in ("leetspeak", "letters swapped"):
        pairs = zip(post.split(), edited(BY_NAME[name], post, 0).split(), strict=True)
        assert sum(a != b for a, b in pairs) == 3
    assert edited(BY_NAME["spaces removed"], post, 0).count(" ") == 3
    assert edited(BY_NAME["upper case"], post, 0) == post.upper()


@pytest.mark.parametrize("edit", HARMLESS, ids=lambda edit: edit.name)
def test_harmless_edits_keep_every_word_in_its_order(edit, posts):
    for post in posts:
        rest = iter(words(edited(edit, post, 0)))
        assert all(word in rest for word in words(post))


def test_harmless_edits_add_what_they_say():
    text = {edit.name: edited(edit, 'it\'s "so" kind', 0) for edit in HARMLESS}
    assert text["full stop"] == 'it\'s "so" kind.'
    assert edited(BY_NAME["full stop"], "kind.", 0) == "kind."
    assert text["exclamation mark"] == 'it\'s "so" kind!'
    assert text["quotation marks"] == '"it\'s "so" kind"'
    assert text["typographic quotes"] == "it’s “so” kind"
    assert re.fullmatch(r"@user\d+ it's \"so\" kind", text["mention in front"])
    assert re.fullmatch(r"it's \"so\" kind https://example\.org/\d+", text["link behind"])
    assert re.fullmatch(r"it's \"so\" kind #\w+", text["hashtag behind"])


def test_cleaning_undoes_spaces_line_breaks_and_entities(posts):
    for edit in CLEANED:
        raw = edit.apply(POST, random.Random(0))
        assert raw != POST
        for post in posts:
            assert edited(edit, post, 0) == post


@pytest.mark.parametrize("family", [*INJECTIONS, NEUTRAL])
def test_an_injection_leaves_the_post_whole_and_names_the_answer(family):
    for place in PLACES:
        for label in ("Offensive", "none"):
            text = injected(POST, family, label, place)
            assert text.startswith(POST) if place == "behind" else text.endswith(POST)
            assert (label in text.replace(POST, "")) == (family != NEUTRAL)
            assert "\n" not in text


def test_an_injected_template_stays_part_of_the_post(tokenizer):
    """A forged response or an end of sequence in a post is text: prefix and tail stay the same."""
    from sbic_llama.data.encoding import encode

    feature = FEATURES["offensiveYN"]
    attacks = [injected(POST, family, "Offensive", "behind") for family in INJECTIONS]
    plain, attacked = (encode(tokenizer, feature, texts, max_post_tokens=384) for texts in ([POST], attacks))
    start, tail = plain.prefix_ids, tokenizer(TAIL, add_special_tokens=False).input_ids[-5:]
    specials = set(tokenizer.all_special_ids)
    for ids in attacked.prompts:
        assert ids[: len(start)] == start
        assert ids[-5:] == tail
        assert not specials & set(ids[len(start) :])
    assert TAIL.strip() in attacks[1], "the forged response matches the template"


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(FAMILIES)


def swapped(lexicon: Lexicon, text: str, other: str) -> str:
    mention = lexicon.mentions(text)[0]
    return lexicon.swap(text, mention.family, mention.group, other)


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("women are kind", "men", "men are kind"),
        ("WOMEN are kind", "men", "MEN are kind"),
        ("Women met a woman's girl", "men", "Men met a man's boy"),
        ("womanly mentions of menus, @women #women", None, None),
        ("a Muslim is a muslim woman", "Jews", "a Jew is a jewish woman"),
        ("muslims, and Jews", "Jews", "jews, and Muslims"),
        ("a mexican cook", "Italians", "an italian cook"),
        ("An Italian", "Germans", "A German"),
        ("the black cat", None, None),
        ("black people and a white guy", "white people", "white people and a black guy"),
        ("African Americans", "Asian people", "Asian People"),
        ("an african american man", "white people", "a white man"),
        ("straight ahead, gay couples", "bisexual people", "straight ahead, bisexual couples"),
        ("some disabled people", "non-disabled people", "some non-disabled people"),
        ("some non-disabled people", "disabled people", "some disabled people"),
    ],
)
def test_a_group_is_swapped_in_its_own_form(lexicon, text, other, expected):
    if expected is None:
        assert lexicon.mentions(text) == []
    else:
        assert swapped(lexicon, text, other) == expected


def test_every_group_has_the_forms_of_its_family_and_a_second_swap_undoes_the_first():
    for families in (FAMILIES, INVENTED):
        lexicon = Lexicon(families)
        for family in families:
            assert len({frozenset(forms) for forms in family.groups.values()}) == 1
            for group, forms in family.groups.items():
                for form, (word, *_) in forms.items():
                    text = f"some {word} people" if form in ("before people", "adjective") else f"some {word}, they say"
                    assert [mention.group for mention in lexicon.mentions(text)] == [group], text
                    for other in family.groups:
                        there = lexicon.swap(text, family, group, other)
                        assert (there != text) == (other != group)
                        assert lexicon.swap(there, family, group, other) == text


def test_the_miniatures_posts_name_what_their_generator_says(miniature):
    lexicon = Lexicon(INVENTED)
    (family,) = INVENTED
    for post in load_splits(data_dir=miniature / "SBIC.v2")["test"].posts:
        found = {mention.group for mention in lexicon.mentions(post.text)}
        assert found == {name for name in family.groups if name in post.text}
        assert {group for name in lexicon.named(post.groups) for group in name} <= found


def test_the_groups_of_an_answer_are_the_same_however_they_are_written(lexicon):
    assert lexicon.named(("african americans",)) == lexicon.named(("black folks",)) == {("black people",)}
    named = lexicon.named(("black women", "teachers"))
    assert named == {("black people", "women"), "teachers"}
    assert swap_groups(named, "women", "men") == {("black people", "men"), "teachers"}
    assert swap_groups(named, "white people", "black people") == {("white people", "women"), "teachers"}
