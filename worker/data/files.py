"""Files that data is read from: found by pattern, recognised by their first bytes, and named in errors."""

from __future__ import annotations

import glob
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ps.errors import InvalidArgument
from worker.data.errors import UnreadableFile

GZIP_MAGIC = b"\x1f\x8b"
UTF8_MARK = b"\xef\xbb\xbf"
"""The byte order mark that some editors put before a text."""

_OTHERS = {
    b"PK\x03\x04": "a zip archive: unpack it first, as with `unzip`",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it first, as with `unzstd`",
    b"BZh": "compressed by bzip2: unpack it first, as with `bunzip2`",
    b"\xfd7zXZ\x00": "compressed by xz: unpack it first, as with `unxz`",
    b"PAR1": "a Parquet file: write it as tab-separated text first",
    b"\xff\xfe": "text in UTF-16: `iconv -f UTF-16 -t UTF-8` makes it readable",
    b"\xfe\xff": "text in UTF-16: `iconv -f UTF-16 -t UTF-8` makes it readable",
}
"""First bytes -> what kind of file has them; none of these kinds is text or gzip."""
_PEEKED = max(map(len, _OTHERS))


def matching(patterns: Sequence[str]) -> list[Path]:
    """Returns the files that paths or shell patterns name. Those of a pattern are in the order of names, day_2 before
    day_10. Raises InvalidArgument for a pattern that matches none."""
    found: list[Path] = []
    for pattern in patterns:
        if Path(pattern).exists() or not glob.has_magic(pattern):
            found.append(Path(pattern))
            continue
        matches = sorted(glob.glob(pattern, recursive=True), key=_natural)
        if not matches:
            raise InvalidArgument(f"--path {pattern!r} matches no file here, in {Path.cwd()}")
        found += map(Path, matches)
    return found


def check_readable(path: Path) -> None:
    """Raises UnreadableFile for a file that cannot be opened, or whose first bytes show that it is not text."""
    with reading(path):
        if path.is_fifo():
            return  # what is read from a pipe is gone
        with text_of(path):
            pass


@contextmanager
def reading(path: Path, so_far: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Raises an error of reading the file as UnreadableFile. so_far: says where in the file reading has come to."""
    try:
        yield
    except UnreadableFile:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = "ends early, it was cut short" if isinstance(error, EOFError) else f"is damaged ({error})"
        raise UnreadableFile(path, f"the gzip file {reason}{so_far()}: download or pack it again") from None
    except IsADirectoryError:
        raise UnreadableFile(path, f"is a directory: name files in it, as with '{path}/*'") from None
    except FileNotFoundError:
        raise UnreadableFile(path, "does not exist: check the path") from None
    except PermissionError:
        raise UnreadableFile(path, "permission denied: let this user read it, as with `chmod +r`") from None
    except OSError as error:
        raise UnreadableFile(path, f"cannot be read{so_far()} ({error.strerror or error})") from error


@contextmanager
def text_of(path: Path) -> Iterator[BinaryIO]:
    """Yields the file's bytes, decompressed if it is gzip, whatever its name. Raises UnreadableFile for a file that is
    known to be neither text nor gzip, and the errors of `open`."""
    with path.open("rb") as file:
        head = file.peek(_PEEKED)[:_PEEKED]
        for magic, what in _OTHERS.items():
            if head.startswith(magic):
                raise UnreadableFile(path, f"is {what}")
        yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if head.startswith(GZIP_MAGIC) else file


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns a key by which names are sorted with their numbers compared as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
