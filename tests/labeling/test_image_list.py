"""Images of folders, patterns, list files and tar files, in a fixed order, shard by shard."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskclippp.errors import InputError, MissingFileError
from maskclippp.labeling.image_list import (
    ImageList,
    check_source,
    find_images,
    image_root,
    write_image_list,
)

NAMES = ["a.jpg", "b/1.png", "b/2.png", "c.webp"]


def save(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """With other files, hidden ones, results, and a folder that is linked in itself."""
    folder = tmp_path / "photos"
    for index, name in enumerate([*NAMES, "found/x.png", "__MACOSX/a.jpg"]):
        save(folder / name, index)
    for name in (".hidden.png", "notes.txt", "b/._1.png"):
        (folder / name).touch()
    (folder / "b" / "again").symlink_to(folder)
    return folder


def names(source: Path | str, results: Path = Path("found")) -> list[str]:
    return [entry.name for entry in find_images(str(source), results)]


def test_a_folder_with_subfolders(photos: Path) -> None:
    assert names(photos, photos / "found") == ["a.jpg", "c.webp", "b/1.png", "b/2.png"]


def test_results_may_lie_in_the_folder_itself(photos: Path) -> None:
    assert "b/1.png" in names(photos, photos)
    assert "found/x.png" in names(photos, photos)


def test_a_pattern(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    assert names("b/[0-9].*") == ["b/1.png", "b/2.png"]
    assert names(f"{photos}/*") == [f"{photos}/a.jpg", f"{photos}/c.webp"]
    save(Path("odd[1].png"))
    assert names("odd[1].png") == ["odd[1].png"]


def test_a_list_names_files_beside_it_once(photos: Path) -> None:
    listed = photos / "listed.txt"
    listed.write_bytes(b"\xef\xbb\xbfb/2.png\r\n\r\na.jpg\nb/2.png\nabsent.jpg\n/else/x.jpg\n")
    entries = list(find_images(str(listed), photos / "found"))
    assert [entry.name for entry in entries] == ["b/2.png", "a.jpg", "absent.jpg", "/else/x.jpg"]
    root = image_root(str(listed))
    assert np.asarray(entries[0].read(root))[0, 0, 0] == NAMES.index("b/2.png")
    assert isinstance(entries[2].read(root), MissingFileError)
    assert "image /else/x.jpg does not exist" in str(entries[3].read(root))


def test_images_in_tar_files_are_those_of_the_files(photos: Path) -> None:
    tars = photos.parent / "tars"
    tars.mkdir()
    for number in range(2):
        with tarfile.open(tars / f"{number}.tar", "w") as tar:
            for name in ("b/1.png", "notes.txt", "b/._1.png", "c.webp"):
                tar.add(photos / name, f"{number}/{name}")
    entries = list(find_images(str(tars), photos))
    assert [entry.name for entry in entries] == [
        f"{number}.tar/{number}/{name}" for number in range(2) for name in ("b/1.png", "c.webp")
    ]
    for entry in entries:
        expected = Image.open(photos / entry.member.partition("/")[2]).convert("RGB")
        assert np.array_equal(np.asarray(entry.read(tars)), np.asarray(expected))


def test_a_cut_image_in_a_tar_file_is_an_error_of_its_row(photos: Path) -> None:
    with tarfile.open(photos / "x.tar", "w") as tar:
        tar.add(photos / "b/1.png", "1.png")
    (entry,) = find_images(str(photos / "x.tar"), photos)
    error = entry._replace(size=entry.size - 20).read(Path())
    assert isinstance(error, InputError)
    assert "x.tar/1.png cannot be read" in str(error)


def test_names_that_are_not_text_are_readable_images(tmp_path: Path) -> None:
    odd = tmp_path / "photos" / "\udcff\n.png"
    save(odd, 7)
    write_image_list(tmp_path / "images.txt", find_images(str(odd.parent), tmp_path))
    (entry,) = ImageList(tmp_path / "images.txt", 10).shard(0)
    assert np.asarray(entry.read(odd.parent))[0, 0, 0] == 7
    assert entry.name.encode() == "\N{REPLACEMENT CHARACTER}\n.png".encode()


def test_shards_have_every_image_once(tmp_path: Path) -> None:
    for index in range(7):
        save(tmp_path / "photos" / f"{index}.png")
    path = tmp_path / "images.txt"
    write_image_list(path, find_images(str(tmp_path / "photos"), tmp_path))
    images = ImageList(path, 3)
    shards = [[entry.name for entry in images.shard(shard)] for shard in range(images.shards)]
    assert shards == [["0.png", "1.png", "2.png"], ["3.png", "4.png", "5.png"], ["6.png"]]
    assert images.count == 7


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tar.gz", b"\x1f\x8b", r"x\.tar\.gz is compressed"),
        ("x.tar", b"no tar file" * 100, r"x\.tar cannot be read as a tar file"),
        ("x.bin", b"\0\1", r"x\.bin is neither an image .* nor a text file with one path per"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        names(tmp_path / name)


def test_a_source_must_exist(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"absent does not exist \(looked in .*expected a"):
        check_source(str(tmp_path / "absent"))
    with pytest.raises(MissingFileError):
        check_source(str(tmp_path / "*.jpg"))
