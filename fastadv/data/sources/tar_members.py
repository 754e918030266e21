"""Read the members of a tar file strictly: damage is an error instead of an early end, or a seek elsewhere."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from fastadv.data.sources.compressed import compression_of

_HEADERS = (  # tarfile reads their content into memory: the next member's name, or its attributes
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_LONGEST_HEADER = 2**14  # bytes; Python 3.11's tarfile takes quadratic time for it
_MOST_LINKS = 40  # to follow, as in Linux
_CHUNK = 2**20  # bytes


class _Member(tarfile.TarInfo):
    """Refuses sizes that would make :mod:`tarfile` seek backwards, or allocate any amount of memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0:
            raise tarfile.ReadError(f"the size of {member.name!r} is negative")
        if member.type in _HEADERS and member.size > _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {member.size} bytes is longer than {_LONGEST_HEADER}")
        return member


def tar_members(file: Path) -> list[tarfile.TarInfo]:
    """List all members of a tar file, in order.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not a complete, uncompressed tar file: a member extends beyond the end or is sparse, or
            data follows the last one.
    """
    try:
        with file.open("rb") as content:
            return _members(content, file.stat().st_size)
    except OSError:
        raise
    except Exception as error:  # tarfile raises many kinds for damaged headers
        found = compression_of(file)
        why = f"it is compressed ({found})" if found else str(error) or type(error).__name__
        raise ValueError(f"{file} is not a complete, uncompressed tar shard: {why}") from error


def _members(content: BinaryIO, size: int) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=content, mode="r:", tarinfo=_Member) as tar:
        for member in tar:
            if member.size < 0:  # set by a header before the member's own
                raise ValueError(f"the size of {member.name!r} is negative")
            if member.issparse():
                raise ValueError(f"{member.name!r} is stored sparsely, which is not supported")
            if _has_content(member) and member.offset_data + member.size > size:
                raise ValueError(f"{member.name!r} extends beyond the end")
        # tarfile takes a damaged header for the end, and ignores what follows the end.
        _check_end(content, tar.offset)
        return tar.getmembers()


def _has_content(member: tarfile.TarInfo) -> bool:
    """Whether content follows the header; it does for types that tarfile does not know, too."""
    return member.isreg() or member.type not in tarfile.SUPPORTED_TYPES


def _check_end(content: BinaryIO, end: int) -> None:
    """Check that the file has only zeros from ``end`` on, the end mark of a tar file."""
    content.seek(end)
    mark = content.read(tarfile.BLOCKSIZE)
    if len(mark) < tarfile.BLOCKSIZE:
        raise ValueError(f"it ends at byte {end}, without the zeros that mark the end: it may be truncated")
    if any(mark):
        raise ValueError(f"the header at byte {end} is damaged")
    while rest := content.read(_CHUNK):
        if rest.strip(b"\0"):
            raise ValueError(f"data follows its end at byte {end}, as if two tar files were joined")


def follow_links(members: Sequence[tarfile.TarInfo]) -> list[tarfile.TarInfo | None]:
    """Resolve links: each member itself, or the member that its link leads to; None if that is not in the tar file.

    A hard link leads to the last member of that name before it, a symbolic link to the last of all.
    """
    latest: dict[str, int] = {}
    leads: dict[int, int | None] = {}  # from a link's position among the members to its target's
    for place, member in enumerate(members):
        if member.islnk():
            leads[place] = latest.get(posixpath.normpath(member.linkname))
        latest[posixpath.normpath(member.name)] = place
    for place, member in enumerate(members):
        if member.issym():
            target = posixpath.join(posixpath.dirname(member.name), member.linkname)
            leads[place] = latest.get(posixpath.normpath(target))

    def end(place: int | None) -> tarfile.TarInfo | None:
        for _ in range(_MOST_LINKS):
            if place not in leads:
                break
            place = leads[place]
        return None if place is None or place in leads else members[place]

    return [end(place) for place in range(len(members))]
