"""What the bytes of a file say, whatever its name is: a first look, and their SHA-256."""

import hashlib
from pathlib import Path

_LOOK = 512
_BLOCK = 2**20

ZIP = b"PK\x03\x04"
# Before zip archives, torch began its files with a pickle of this number.
LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

_LFS_POINTER = "a Git LFS pointer instead of the file itself: run 'git lfs pull', or download it"
_COMPRESSED = "a {} archive: unpack it first"
_FOREIGN = {
    b"version https://git-lfs": _LFS_POINTER,
    b"oid sha256:": _LFS_POINTER,
    b"\x1f\x8b": _COMPRESSED.format("gzip"),
    b"BZh": _COMPRESSED.format("bzip2"),
    b"\xfd7zXZ\x00": _COMPRESSED.format("xz"),
    b"\x28\xb5\x2f\xfd": _COMPRESSED.format("zstd"),
    b"7z\xbc\xaf\x27\x1c": _COMPRESSED.format("7z"),
    b"Rar!": _COMPRESSED.format("rar"),
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy file",
    b"GGUF": "a GGUF file",
    b"%PDF": "a PDF document",
    b"%!PS": "a PostScript document",
    b"\x89PNG": "a picture (PNG)",
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"GIF8": "a picture (GIF)",
}


def first_bytes(path: Path) -> bytes:
    """The beginning of a file."""
    with path.open("rb") as file:
        return file.read(_LOOK)


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of the content of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def foreign_kind(head: bytes) -> str | None:
    """What a file that begins with ``head`` is, if it holds neither tensors nor words; else None.

    Recognizes what downloads leave behind instead of the file that was meant: saved web pages, Git
    LFS pointers, and archives.
    """
    if not head:
        return "empty"
    if not head.strip(b"\0"):
        return "full of zeros: an incomplete copy"
    for signature, kind in _FOREIGN.items():
        if head.startswith(signature):
            return kind
    if head[257:262] == b"ustar":
        return _COMPRESSED.format("tar")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<script")):
        return "a saved web page instead of the file itself: download it again"
    return None


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON object, and the object."""
    return head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") <= 100_000_000
