"""The words of the shapes world: colors, patterns and shapes, and the classes made of them.

A *thing* class is a color and a patterned shape ("red dotted circle"). A *stuff* class is a tint
and a ground ("gray brick wall"). A third of the combinations is *unseen*: no training
mask has them, but each of their words occurs in several seen classes, so that an encoder which
understands words can name them and one which memorizes classes cannot.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Color:
    """A color word, its synonyms, and the range of hue (degrees), saturation and value (0..1)."""

    words: tuple[str, ...]
    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]


@dataclass(frozen=True)
class ShapesClass:
    """One class: dataset id (from 1), all its names (the first is the usual one), its two parts."""

    id: int
    names: tuple[str, ...]
    color: str
    form: str
    is_thing: bool
    is_seen: bool


COLORS: dict[str, Color] = {
    "red": Color(("red", "crimson"), (-12, 8), (0.75, 1.0), (0.55, 1.0)),
    "orange": Color(("orange", "tangerine"), (18, 36), (0.8, 1.0), (0.75, 1.0)),
    "yellow": Color(("yellow", "golden"), (46, 62), (0.7, 1.0), (0.75, 1.0)),
    "green": Color(("green", "emerald"), (95, 150), (0.55, 1.0), (0.4, 0.9)),
    "blue": Color(("blue", "azure"), (200, 238), (0.6, 1.0), (0.5, 1.0)),
    "purple": Color(("purple", "violet"), (265, 300), (0.5, 0.95), (0.4, 0.9)),
}
TINTS: dict[str, Color] = {
    "gray": Color(("gray", "silver"), (0, 360), (0.0, 0.08), (0.35, 0.8)),
    "brown": Color(("brown", "chocolate"), (18, 34), (0.4, 0.65), (0.3, 0.55)),
    "pink": Color(("pink", "rosy"), (325, 350), (0.2, 0.45), (0.75, 1.0)),
}
# The colors and tints of a biased training set: in it, whole words are unseen.
FEW_COLORS = ("red", "yellow", "blue", "gray")
SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("dotted circle", "spotted disc"),
    "square": ("striped square", "lined box"),
    "triangle": ("zigzag triangle", "chevron wedge"),
    "star": ("checkered star", "chequered pentagram"),
    "cross": ("gridded cross", "latticed plus sign"),
    "ring": ("plain ring", "smooth hoop"),
}
# Each shape has a pattern of its own: a small encoder learns textures long before outlines.
PATTERN_OF_SHAPE: dict[str, str] = {
    "circle": "dotted",
    "square": "striped",
    "triangle": "zigzag",
    "star": "checkered",
    "cross": "gridded",
    "ring": "plain",
}
GROUNDS: dict[str, tuple[str, ...]] = {
    "brick wall": ("brick wall", "masonry"),
    "wavy water": ("wavy water", "rippled lake"),
    "grassy meadow": ("grassy meadow", "lawn"),
    "cloudy sky": ("cloudy sky", "clouds"),
}


def _names(color_words: tuple[str, ...], form_words: tuple[str, ...]) -> tuple[str, ...]:
    """Combine two words and their synonyms; every combination names the same class."""
    return tuple(f"{color} {form}" for color in color_words for form in form_words)


def _make_classes() -> tuple[ShapesClass, ...]:
    classes: list[ShapesClass] = []
    for colors, forms, is_thing in ((COLORS, SHAPES, True), (TINTS, GROUNDS, False)):
        for row, (color, definition) in enumerate(colors.items()):
            for column, (form, words) in enumerate(forms.items()):
                classes.append(
                    ShapesClass(
                        id=len(classes) + 1,
                        names=_names(definition.words, words),
                        color=color,
                        form=form,
                        is_thing=is_thing,
                        # A Latin square: a third of each row and of each column is unseen.
                        is_seen=(row + column) % 3 != 0,
                    )
                )
    return tuple(classes)


CLASSES: tuple[ShapesClass, ...] = _make_classes()
CLASS_BY_PARTS: dict[tuple[str, str], ShapesClass] = {(c.color, c.form): c for c in CLASSES}
