"""What may be a synonym, how a text is split into synonyms, and what the tokenizer sees of them."""

import functools
import re
import unicodedata

import open_clip

from maskclippp.errors import InputError

# Characters that no name needs: they come from markup, JSON, tables and lists of Python.
_MARKUP = re.compile(r'[<>{}\[\]|\\";]')
# Unicode categories without a visible form: control, format (zero width), surrogate, private,
# unassigned, line and paragraph separators.
_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # where a text was decoded wrongly


def split_synonyms(name: str, place: str) -> tuple[str, ...]:
    """``"person, child"`` -> ``("person", "child")``; an InputError starts with ``place``."""
    if not isinstance(name, str):
        raise InputError(
            f"{place}: expected a text such as 'cat, kitten', found {type(name).__name__} {name!r}"
        )
    synonyms = tuple(part.strip() for part in name.split(","))
    if not any(synonyms):
        raise InputError(f"{place}: expected a word such as 'cat', found a blank")
    if not all(synonyms):
        raise InputError(
            f"{place}: {name.strip()!r} has an empty synonym; separate synonyms by single commas"
        )
    for synonym in synonyms:
        _check_characters(synonym, place)
    return synonyms


def separates_words(text: str) -> bool:
    """Whether a text is a row of words rather than a name or a path."""
    return "," in text or ";" in text


def split_classes(text: str, place: str) -> list[str]:
    """The class names in one text.

    Semicolons separate classes, commas their synonyms: ``"cat, kitten; table"``. Without a
    semicolon, commas separate classes: ``"sky, dog, tree"``. The last separator may end the text;
    one class is ``"cat,"`` or ``"cat, kitten;"``.

    Raises:
        InputError: no separator, so that a name, a path or a word may be meant.
    """
    if not separates_words(text):
        raise InputError(
            f"{place}: expected a list of texts such as ['cat, kitten', 'table'] or one text such "
            f"as 'cat, kitten; table', found {text!r}; a single class is {[text]} or '{text},'"
        )
    separator = ";" if ";" in text else ","
    return text.rstrip().removesuffix(separator).split(separator)


@functools.lru_cache(maxsize=2**17)
def token_key(synonym: str) -> bytes:
    """Equal for synonyms that CLIP cannot tell apart: they have the same token ids.

    CLIP's tokenizer ignores case and blanks, equates full-width and composed letters, and cuts off
    what exceeds the context length.
    """
    return bytes(open_clip.tokenize(synonym).numpy().tobytes())


def _check_characters(synonym: str, place: str) -> None:
    markup = _MARKUP.search(synonym)
    if markup is not None:
        raise InputError(
            f"{place}: {_shown(synonym)} holds {markup[0]!r}, which does not belong in a name; "
            "expected plain words, synonyms separated by commas, and one class per line or entry"
        )
    for character in synonym:
        if character == _REPLACEMENT or unicodedata.category(character) in _INVISIBLE:
            name = unicodedata.name(character, "control character")
            raise InputError(
                f"{place}: {_shown(synonym)} holds the character U+{ord(character):04X} "
                f"({name.lower()}), which cannot be seen but changes the word; remove it"
            )


def shortened(text: str) -> str:
    """The beginning and the end of a long text, for messages."""
    return text if len(text) <= 60 else f"{text[:28]}...{text[-29:]}"


def _shown(text: str) -> str:
    return ascii(shortened(text))
