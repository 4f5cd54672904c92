"""The one reader of panoptic and instance annotation in COCO's JSON formats, LVIS included.

What it returns is complete and consistent: types, unique ids, references, file names inside their
folder, and run-length codes that fill their image.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from msgspec import Meta
from typing_extensions import NotRequired, TypedDict, get_type_hints

from maskclippp.errors import InputError
from maskclippp.files.json_files import read_json
from maskclippp.masks import run_length

# Larger coordinates would take the time and memory of an image of that size.
_MAX_COORDINATE = 1e6
MAX_SEGMENT_ID = 256**3 - 1

CategoryId = Annotated[int, Meta(ge=0, le=2**53)]  # V7 numbers categories by 32-bit hashes
Flag = Annotated[int, Meta(ge=0, le=1)]
Length = Annotated[int, Meta(ge=1, le=2**16 - 1)]  # the pixels of a run-length code have 32 bits
Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | str
Area = Annotated[int, Meta(ge=0, le=2**53)] | Annotated[float, Meta(ge=0, le=2**53)]
FileName = Annotated[str, Meta(min_length=1)]
Coordinate = Annotated[float, Meta(ge=-_MAX_COORDINATE, le=_MAX_COORDINATE)]


class PanopticCategory(TypedDict):
    """A class of a panoptic file; ``color`` is kept for result files."""

    id: CategoryId
    name: str
    isthing: Flag
    supercategory: NotRequired[Any]
    color: NotRequired[Any]


class Category(TypedDict):
    """A class of an instance file."""

    id: CategoryId
    name: NotRequired[str]
    supercategory: NotRequired[str | None]
    frequency: NotRequired[Literal["r", "c", "f"]]  # LVIS


class Image(TypedDict):
    """An image; ``coco_url`` and the lists of categories are LVIS's."""

    id: Id
    height: NotRequired[Length]
    width: NotRequired[Length]
    file_name: NotRequired[FileName]
    coco_url: NotRequired[FileName]
    neg_category_ids: NotRequired[list[int]]
    not_exhaustive_category_ids: NotRequired[list[int]]


class PanopticSegment(TypedDict):
    """A segment: the pixels of value ``id`` in the PNG of its image."""

    id: Annotated[int, Meta(ge=1, le=MAX_SEGMENT_ID)]
    category_id: CategoryId
    iscrowd: NotRequired[Flag]
    area: NotRequired[Area]


class PanopticImage(TypedDict):
    """The annotation of an image; ``file_name`` is its PNG."""

    image_id: int | str
    file_name: FileName
    segments_info: list[PanopticSegment]


class RunLengthCode(TypedDict):
    """See :mod:`maskclippp.masks.run_length`."""

    size: Annotated[list[Length], Meta(min_length=2, max_length=2)]
    counts: list[Annotated[int, Meta(ge=0)]] | str


class Instance(TypedDict):
    """An object, outlined by polygons [[x1, y1, x2, y2, ...], ...] or a run-length code."""

    id: NotRequired[int | str]
    image_id: int | str
    category_id: CategoryId
    bbox: NotRequired[Annotated[list[Coordinate], Meta(min_length=4, max_length=4)]]
    segmentation: NotRequired[list[list[Coordinate]] | RunLengthCode]
    area: NotRequired[Area]
    iscrowd: NotRequired[Flag]


class PanopticFile(TypedDict):
    """A file in COCO's panoptic format."""

    images: list[Image]
    annotations: list[PanopticImage]
    categories: list[PanopticCategory]
    info: NotRequired[Any]
    licenses: NotRequired[Any]


class InstanceFile(TypedDict):
    """A file in COCO's or LVIS's instance format."""

    images: list[Image]
    annotations: list[Instance]
    categories: list[Category]


def read_panoptic(path: str | Path, what: str, *, with_areas: bool = False) -> PanopticFile:
    """Read panoptic annotation; ``with_areas``: every segment must have one.

    Raises:
        MissingFileError: the file does not exist.
        InputError: the file is malformed or inconsistent; names entry and key, what was expected
            and what was found.
    """
    content: PanopticFile
    content, category_ids = _read(
        path,
        PanopticFile,
        what,
        "segmentation",
        "is instance annotation: its annotations have a segmentation, but no segments_info; read "
        "it as a dataset of kind coco_instances",
    )
    annotations = content["annotations"]
    of_images = _unique((a["image_id"] for a in annotations), path, "annotations", "image_id")
    _unique((a["file_name"] for a in annotations), path, "annotations", "file_name")
    listed = {image["id"] for image in content["images"]}
    _check_listed(of_images, listed, path, "image_id", "images")
    for number, annotation in enumerate(annotations):
        _check_inside(annotation["file_name"], path, f"annotations[{number}].file_name")
        segments = annotation["segments_info"]
        place = f"annotations[{number}].segments_info"
        if len({segment["id"] for segment in segments}) < len(segments):
            _unique((segment["id"] for segment in segments), path, place, "id")
        if with_areas and not all("area" in segment for segment in segments):
            index = next(i for i, segment in enumerate(segments) if "area" not in segment)
            raise InputError(f"{path}: {place}[{index}] lacks area; it is needed as {what}")
        unknown = [s for s in segments if s["category_id"] not in category_ids]
        if unknown:
            raise InputError(
                f"{path}, image {annotation['image_id']} ({annotation['file_name']}): segment "
                f"{unknown[0]['id']} has category {unknown[0]['category_id']}, which is not among "
                "the categories of the file: add it there and register the dataset with a class "
                "list that has it, or leave the segment out"
            )
    return content


def read_instances(
    path: str | Path, what: str, *, required: Mapping[str, Sequence[str]] | None = None
) -> InstanceFile:
    """Read instance annotation.

    The empty parent that Roboflow adds to the categories is left out.

    Args:
        what: purpose of the file, for messages.
        required: optional keys that must be there, by list.

    Raises:
        MissingFileError: the file does not exist.
        InputError: the file is malformed or inconsistent; names entry and key, what was expected
            and what was found.
    """
    content: InstanceFile
    content, category_ids = _read(
        path,
        _requiring(InstanceFile, required or {}),
        what,
        "segments_info",
        "is panoptic annotation: its annotations have segments_info, but no segmentation; read it "
        "as a dataset of kind coco_panoptic",
    )
    annotations = content["annotations"]
    if all("id" in annotation for annotation in annotations):
        _unique((a.get("id") for a in annotations), path, "annotations", "id")
    sizes = {i["id"]: [i.get("height"), i.get("width")] for i in content["images"]}
    _check_listed((a["image_id"] for a in annotations), sizes, path, "image_id", "images")
    used = [annotation["category_id"] for annotation in annotations]
    _check_listed(used, category_ids, path, "category_id", "categories")
    _check_outlines(annotations, sizes, path)
    parent = _empty_parent(content["categories"], set(used))
    content["categories"] = [c for c in content["categories"] if c is not parent]
    return content


def _read(
    path: str | Path, schema: Any, what: str, foreign_key: str, foreign: str
) -> tuple[Any, set[Any]]:
    """The content of a file, its images checked, and the ids of its categories.

    A file whose annotations have ``foreign_key`` is of another kind; ``foreign`` says which.
    """
    try:
        content = read_json(path, schema, what)
    except InputError as error:
        if foreign_key in _keys_of_first_annotation(path):
            raise InputError(f"{path} {foreign}") from error
        raise
    category_ids = _unique((c["id"] for c in content["categories"]), path, "categories", "id")
    _check_images(content["images"], path)
    return content, category_ids


def _keys_of_first_annotation(path: str | Path) -> set[str]:
    """The keys of the first annotation of a file that is not as expected; {} if there is none."""
    try:
        content = read_json(path, dict[str, Any], "annotation")
        return set(dict(content["annotations"][0]))
    except (InputError, LookupError, TypeError, ValueError):
        return set()


def _check_images(images: Sequence[Image], path: str | Path) -> None:
    _unique((image["id"] for image in images), path, "images", "id")
    for number, image in enumerate(images):
        if type(image["id"]) is not type(images[0]["id"]):
            raise InputError(
                f"{path}: images[{number}].id must be of the type of the others, found "
                f"{image['id']!r}, but that of images[0] is {images[0]['id']!r}"
            )
    for number, image in enumerate(images):
        if "file_name" in image:
            _check_inside(image["file_name"], path, f"images[{number}].file_name")


def _check_inside(name: str, path: str | Path, place: str) -> None:
    """Raise an InputError if a file name leaves the folder of its dataset."""
    if name.startswith("/") or "\0" in name or (".." in name and ".." in name.split("/")):
        raise InputError(
            f"{path}: {place} must be a path below the folder of the dataset, found {name!r}: "
            "give a folder that contains all files, and names relative to it"
        )


def _unique(values: Iterable[Hashable], path: str | Path, place: str, key: str) -> set[Hashable]:
    """The values; an InputError names the first that occurs twice."""
    first: dict[Hashable, int] = {}
    for number, value in enumerate(values):
        if first.setdefault(value, number) != number:
            raise InputError(
                f"{path}: {place}[{number}].{key} must be unique, found {value!r}, which is also "
                f"the {key} of {place}[{first[value]}]"
            )
    return set(first)


def _check_listed(
    found: Iterable[Hashable], listed: Iterable[Hashable], path: str | Path, key: str, where: str
) -> None:
    """Raise an InputError unless the annotations refer to entries that the file lists."""
    listed = listed if isinstance(listed, set | dict) else set(listed)
    for number, value in enumerate(found):
        if value not in listed:
            similar = [entry for entry in listed if str(entry) == str(value)]
            raise InputError(
                f"{path}: annotations[{number}].{key} must be an id of {where}, found {value!r}"
                + (f" ({similar[0]!r} is of another type)" if similar else "")
            )


def _check_outlines(
    annotations: Sequence[Instance],
    sizes: Mapping[int | str, Sequence[int | None]],
    path: str | Path,
) -> None:
    """Raise an InputError for boxes of negative size, half points, and codes that do not fit."""
    coded = []
    for number, annotation in enumerate(annotations):
        if min(annotation.get("bbox", (0, 0))[-2:]) < 0:
            raise InputError(
                f"{path}: annotations[{number}].bbox must be [x, y, width, height] of a box, found "
                f"{annotation['bbox']}"
            )
        outline = annotation.get("segmentation", [])
        if isinstance(outline, dict):
            coded.append((number, outline))
            size = sizes[annotation["image_id"]]
            if outline["size"] != size and None not in size:
                raise InputError(
                    f"{path}: annotations[{number}].segmentation.size must be that of image "
                    f"{annotation['image_id']}, {size} (height, width), found {outline['size']}"
                )
        else:
            for polygon in outline:
                if len(polygon) % 2:
                    raise InputError(
                        f"{path}: annotations[{number}].segmentation must be polygons "
                        f"[x1, y1, x2, y2, ...], found one of {len(polygon)} numbers"
                    )
    wrong = run_length.first_invalid([code for _, code in coded])
    if wrong is not None:
        index, reason = wrong
        raise InputError(
            f"{path}: annotations[{coded[index][0]}].segmentation.counts must fill an image of "
            f"{' x '.join(map(str, coded[index][1]['size']))} (height x width), but {reason}"
        )


def _empty_parent(categories: Sequence[Category], used: set[int]) -> Category | None:
    """The category of all others that Roboflow adds: it is the top, and annotates nothing."""
    for category in categories:
        others = [c for c in categories if c is not category]
        is_top = category.get("supercategory") in (None, "", "none")
        is_parent = others and all(
            c.get("supercategory") == category.get("name", ...) for c in others
        )
        if is_top and is_parent and category["id"] not in used:
            return category
    return None


@lru_cache(maxsize=32)
def _requiring_cached(kind: Any, required: tuple[tuple[str, tuple[str, ...]], ...]) -> Any:
    fields = get_type_hints(kind, include_extras=True)
    for name, keys in required:
        (entry,) = get_args(_plain(fields[name]))
        hints = {
            key: _plain(hint) if key in keys else hint
            for key, hint in get_type_hints(entry, include_extras=True).items()
        }
        fields[name] = list[TypedDict(entry.__name__, hints)]  # type: ignore[misc,operator]
    return TypedDict(kind.__name__, fields)  # type: ignore[operator]


def _requiring(kind: Any, required: Mapping[str, Sequence[str]]) -> Any:
    """The type of a file whose lists (all of ``required``) hold entries with these keys."""
    return _requiring_cached(kind, tuple((name, tuple(keys)) for name, keys in required.items()))


def _plain(hint: Any) -> Any:
    """``NotRequired[X]`` -> ``X``."""
    return get_args(hint)[0] if get_origin(hint) is NotRequired else hint
