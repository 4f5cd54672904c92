"""What may be a word, and which words CLIP cannot tell apart."""

from unicodedata import category

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskclippp.errors import InputError
from maskclippp.words.class_files import parse_class_row, parse_vocabulary
from maskclippp.words.spelling import token_key
from maskclippp.words.vocabulary import Vocabulary

LONG = " ".join(["very"] * 90)
SAME = [
    ("Sky", "sky"),
    ("traffic light", "traffic  light"),
    ("traffic light", "traffic\N{NO-BREAK SPACE}light"),
    ("\uff53\uff4b\uff59", "sky"),
    ("cr\u00e8me", "cre\u0300me"),
    ("tv2", "tv 2"),
    ("t-shirt", "T - shirt"),
    ("driver\u2019s cab", "driver's cab"),
    (f"{LONG} red square", f"{LONG} green grass"),
]


@pytest.mark.parametrize(("first", "second"), SAME)
def test_words_with_equal_tokens_are_one_word(first: str, second: str) -> None:
    with pytest.raises(InputError, match=r"2?1 synonyms occur more than once.*\(classes 0, 2\)"):
        Vocabulary.from_class_names([first, "dog", second]).require_unique()
    assert Vocabulary.from_class_names([first]).seen_in(
        Vocabulary.from_class_names(["cat", second])
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [("sky", "skies"), ("traffic light", "trafficlight"), ("cafe", "caf\u00e9")],
)
def test_words_with_other_tokens_are_two(first: str, second: str) -> None:
    assert len(Vocabulary.from_class_names([first, second]).require_unique()) == 2


def test_what_one_class_repeats_is_no_problem(caplog: pytest.LogCaptureFixture) -> None:
    """OpenSeg's lists of ADE20K, Mapillary and Pascal VOC repeat synonyms within a class."""
    Vocabulary.from_class_names(["TV, tv", "dog"]).require_unique()
    assert not caplog.records
    Vocabulary.from_class_names(["tv, tv", "dog"], "list").require_unique()
    assert "list: classes repeat their own synonyms ['tv']" in caplog.text


def test_a_train_class_finds_its_test_class_in_other_case() -> None:
    test = Vocabulary.from_class_names(["Dog", "cat"])
    assert test.class_of_train_class(Vocabulary.from_class_names(["cat", "dog"])).tolist() == [
        1,
        0,
        2,
    ]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("sky\u200b", r"U\+200B \(zero width space\)"),
        ("traf\u00adfic", r"U\+00AD \(soft hyphen\)"),
        ("\ufeffsky", r"U\+FEFF"),
        ("a\tb", r"U\+0009 \(control character\)"),
        ("a\nb", r"U\+000A"),
        ("a\x00b", r"U\+0000"),
        ("sky\u202e", r"U\+202E"),
        ("a\u2028b", r"U\+2028"),
        ("a\u2029b", r"U\+2029"),
        ("caf\ufffd", r"U\+FFFD \(replacement character\)"),
        ("\ud800", r"U\+D800"),
        ("<b>sky</b>", "'<'"),
        ("{'sky'", "'{'"),
        ('"sky"', "'\"'"),
        ("sky; dog", "';'"),
        ("['sky'", "'\\['"),
        ("sky | dog", r"'\|'"),
    ],
)
def test_characters_that_no_word_has_are_named(name: str, found: str) -> None:
    with pytest.raises(InputError, match=rf"^mine, class 1: .*{found}.*"):
        Vocabulary.from_class_names(["dog", name], "mine")


@pytest.mark.parametrize(
    "name",
    ["bow (weapon)", "driver's cab", "50% sign", "R&B", "gr\u00fcne Wiese", "\u732b", "#1", "a/c"],
)
def test_characters_of_real_words_are_allowed(name: str) -> None:
    assert Vocabulary.from_class_names([name]).synonyms == (name,)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat, kitten; table", ("cat, kitten", "table")),
        ("cat, kitten;", ("cat, kitten",)),
        ("cat; table;\n", ("cat", "table")),
        ("sky, dog, tree", ("sky", "dog", "tree")),
        ("sky,", ("sky",)),
    ],
)
def test_one_text_follows_the_same_rule_everywhere(text: str, names: tuple[str, ...]) -> None:
    assert Vocabulary.from_class_names(text).names == parse_class_row(text).names == names


@pytest.mark.parametrize(
    "names", ["sky", "", [1, 2], [None], b"sky, dog", {"sky"}, {"a": 1}, 3, [["cat"]]]
)
def test_what_is_no_list_of_texts_is_refused(names: object) -> None:
    with pytest.raises(
        InputError, match=r"class names.*(expected a (list of )?text|no class names)"
    ):
        Vocabulary.from_class_names(names)


_TEXT = st.text(max_size=12) | st.sampled_from([word for pair in SAME for word in pair])


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.lists(_TEXT, max_size=6), st.sampled_from(["\n", ", ", "; "]))
def test_any_list_is_told_apart_or_refused(lines: list[str], separator: str) -> None:
    """Works, or says what is wrong; classes that pass have tokens of their own."""
    text = separator.join(lines)
    for read in (
        parse_class_row,
        lambda t: parse_vocabulary(t.split("\n"), "list").require_unique(),
    ):
        try:
            words = read(text)
        except InputError:
            continue
        keys = [{token_key(name) for name in synonyms} for synonyms in words.classes]
        assert len(set.union(*keys)) == sum(map(len, keys))
        assert not any(category(c).startswith("C") for name in words.synonyms for c in name)
