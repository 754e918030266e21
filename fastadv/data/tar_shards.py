"""WebDataset's tar shards: files of one stem are one example, such as ``n01440764_10026.jpg`` and ``.cls``."""

from __future__ import annotations

import tarfile
from pathlib import Path

from fastadv.data.image_folder import EXTENSIONS
from fastadv.data.shards import Entry
from fastadv.wording import few


def tar_entries(file: Path) -> list[Entry]:
    """The images of a tar file with the numbers in their ``.cls`` files, in the order of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not an uncompressed tar file, is cut off, or has an image without a class or a second in
            an example.
    """
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    second: list[str] = []
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                folder, slash, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                example = f"{folder}{slash}{stem}"
                if f".{extension.lower()}" in EXTENSIONS:
                    second += [member.name] if example in images else []
                    images[example] = member
                elif extension == "cls" and (content := tar.extractfile(member)) is not None:
                    labels[example] = _number(content.read(), f"{file}: {member.name}")
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{file} is not a whole, uncompressed tar shard: {error}") from error
    if second:
        raise ValueError(f"{file}: an example is one image and one .cls file, and {few(second)} come second in theirs")
    lacking = [example for example in images if example not in labels]
    if lacking:
        raise ValueError(
            f"{file}: no .cls file with the class of {few(lacking)}. If it is the archive of one class, as ImageNet is "
            f"downloaded, unpack it into a folder CLASS beside it and remove it"
        )
    return [Entry(image.name, image.offset_data, image.size, labels[key]) for key, image in images.items()]


def _number(content: bytes, name: str) -> int:
    try:
        return int(content)
    except ValueError:
        raise ValueError(f"{name} must hold the number of a class, got {content[:20]!r}") from None
