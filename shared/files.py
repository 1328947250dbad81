"""Files that survive a crash: locked, private, replaced as a whole or not at all.

Not every file system can do all of it. What only makes a file last is left out with a warning, hard
links have a substitute, and where there are no locks, or a file cannot be replaced, the error names
a remedy.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedRandom, BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap

_POLL = 0.01
_LOG = logging.getLogger(__name__)
_MOUNTS = Path("/proc/self/mountinfo")
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}
"""What file systems answer that cannot sync, beside those that say nothing and don't."""
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV}
_NO_LOCKS = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_NO_LOCKS_PROBLEM = "Its file system has no locks: keep it on a local disk, or mount it with locks"
MOUNTED = "is mounted by itself and cannot be replaced"
_MOUNTED_PROBLEM = f"It {MOUNTED}: mount its folder instead"


class _NamedFile(FileIO):
    """A file that errors name; the system names only what it opens."""

    def readall(self) -> bytes:
        with _naming(self.name):
            return super().readall()

    def readinto(self, buffer: Any, /) -> int:
        with _naming(self.name):
            return super().readinto(buffer)

    def write(self, data: Any, /) -> int:
        with _naming(self.name):
            return super().write(data)


class NotARegularFile(OSError):
    """The path is a symbolic link, a FIFO or another thing that must not be read or replaced."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading. Raises OSError."""
    return BufferedReader(_NamedFile(path, opener=_open_regular))


def read(path: Path) -> tuple[bytes, os.stat_result]:
    """Read a whole regular file and what `fstat` says of it. Raises OSError."""
    with open_regular(path) as file, _naming(path):
        status = os.fstat(file.fileno())  # Before: what is written meanwhile is another file.
        return file.read(), status


def read_apart(path: Path) -> tuple[mmap.mmap, os.stat_result]:
    """Read as `read` does, into memory that goes back to the system, not to the thread's heap.

    What is missing, because the file has been cut off meanwhile, is NUL.
    """
    import mmap  # Few processes write into a large file.

    with open_regular(path) as file, _naming(path):
        status = os.fstat(file.fileno())
        memory = mmap.mmap(-1, max(status.st_size, 1))
        file.readinto(memory)
        return memory, status


def stamp(status: os.stat_result) -> tuple[int, ...]:
    """Tell a file, as it was, from every other one and from itself after a change."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def replace(path: Path, *parts: bytes | memoryview) -> tuple[int, ...] | None:
    """Replace a file by these bytes, as `replacing` does. Raises OSError.

    Gives its stamp, or None where somebody has touched it since.
    """
    with replacing(path) as file:
        for part in parts:
            file.write(part)
        file.flush()
        with _naming(path):
            written = stamp(os.fstat(file.fileno()))
    try:
        now = stamp(path.lstat())
    except OSError:
        return None
    return now if now[:-1] == written[:-1] else None  # Getting its name has changed the last part.


@contextmanager
def replacing(path: Path) -> Iterator[BufferedRandom]:
    """Give a file to write, which takes the path's place, mode 0600, when the block ended well.

    Root leaves it to the owner that the path had, or that the folder has.

    Whenever the process or the machine stops, the path holds the old bytes or the new ones. The
    caller holds the file's lock, so that one name is enough for the file that is being written.
    Raises OSError; then the path holds the old bytes, unless only the last step failed, which
    makes the new ones last.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise NotARegularFile(f"{path} is not a regular file")
    fresh = path.with_name(path.name + ".tmp")
    with suppress(FileNotFoundError):
        fresh.unlink()
    with _durable(fresh) as file:
        _give(file.fileno(), path)
        yield file
        file.flush()
        _sync(file.fileno(), fresh)
        with _folder(path.parent) as folder:
            try:
                fresh.rename(path)
            except OSError as error:
                if error.errno != errno.EBUSY or not is_mounted(path):
                    raise
                raise OSError(errno.EBUSY, _MOUNTED_PROBLEM, str(path)) from error
            _sync(folder, path.parent)


@contextmanager
def creating(path: Path) -> Iterator[BufferedRandom]:
    """Give a file to write, which gets its name, mode 0600, when the block has ended well.

    Nothing is overwritten: raises FileExistsError, and OSError. Without a good end there is no
    file, unless the process is killed: then `<path>.<random>.tmp` is what it had written, and
    where there are no hard links, an empty file may have the name.
    """
    if os.path.lexists(path):  # Found out again below, but better before the work than after.
        raise FileExistsError(errno.EEXIST, "The file exists already", str(path))
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    with _durable(fresh) as file:
        yield file
        file.flush()
        _sync(file.fileno(), fresh)
        with _folder(path.parent) as folder:
            _name(fresh, path)
            try:
                _sync(folder, path.parent)
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise


@contextmanager
def _durable(fresh: Path) -> Iterator[BufferedRandom]:
    try:
        with BufferedRandom(_NamedFile(fresh, "x+", opener=_open)) as file:
            yield file
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise


def _name(fresh: Path, path: Path) -> None:
    """Give a new file its name, unless there is something of that name. Raises OSError."""
    try:
        os.link(fresh, path)
        is_linked = True
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(_open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        is_linked = False
    try:
        if is_linked:
            fresh.unlink()
        else:
            fresh.rename(path)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


@contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold the exclusive lock of a file, `<path>.lock`, against threads and processes.

    The kernel lets go of it when the process dies. Raises TimeoutError after `timeout` seconds.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout
    descriptor = _open_lock(path)
    try:
        while True:
            try:
                with _naming(path):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{path} was locked for {timeout:g} s") from None
                time.sleep(_POLL)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                raise OSError(error.errno, _NO_LOCKS_PROBLEM, str(path)) from error
        yield
    finally:
        os.close(descriptor)


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _open_lock(path: Path) -> int:
    lock = _lock_of(path)
    with suppress(FileNotFoundError):
        return _open(lock, os.O_RDWR | os.O_NONBLOCK)
    try:
        descriptor = _open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    except FileExistsError:  # Since then.
        return _open(lock, os.O_RDWR | os.O_NONBLOCK)
    _give(descriptor, path)
    return descriptor


def _give(descriptor: int, path: Path) -> None:
    """Give a file that root has just made to who owns the path, or its folder."""
    if os.geteuid() == 0:
        with suppress(OSError):
            status = (path if os.path.lexists(path) else path.parent).lstat()
            os.fchown(descriptor, status.st_uid, status.st_gid)


def _open(path: Path | str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _open_regular(path: Path | str, flags: int) -> int:
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer for ever.
        descriptor = _open(path, flags | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotARegularFile(f"{path} is a symbolic link, not a regular file") from error
        raise
    try:
        with _naming(path):
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NotARegularFile(f"{path} is not a regular file")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def obstacle(path: Path) -> str | None:
    """Tell why a file could not be read, replaced or locked, if so; leaves nothing behind."""
    if is_mounted(path):
        return f"{path}: {_MOUNTED_PROBLEM}"
    for existing, flags in ((path, os.O_RDONLY), (_lock_of(path), os.O_RDWR)):
        try:
            os.close(_open_regular(existing, flags))
        except FileNotFoundError:
            pass
        except OSError as error:
            return f"{existing}: {error.strerror}" if error.strerror else str(error)
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent  # `locked` makes the others.
    probe = folder / f"{path.name}.{secrets.token_hex(4)}"
    try:
        with locked(probe, 0):
            pass
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    finally:
        with suppress(OSError):
            _lock_of(probe).unlink()
    return None


def is_mounted(path: Path) -> bool:
    """Tell whether the file itself, not its folder, is what was mounted."""
    escaped = os.path.realpath(path)
    for character in "\\ \t\n":
        escaped = escaped.replace(character, f"\\{ord(character):03o}")
    try:
        mounts = _MOUNTS.read_bytes().splitlines()
    except OSError:  # Another system than Linux.
        return False
    return any(line.split(b" ")[4] == os.fsencode(escaped) for line in mounts)


@contextmanager
def _folder(path: Path) -> Iterator[int | None]:
    """Open a folder before what is to be synced in it, so that little can fail afterwards.

    Gives None where it may be written to, but not read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError as error:
        _warn(path, error.strerror)
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(descriptor: int | None, path: Path) -> None:
    if descriptor is None:
        return
    try:
        with _naming(path):
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _warn(path if path.is_dir() else path.parent, error.strerror)


@cache
def _warn(folder: Path, reason: str) -> None:
    _LOG.warning(
        "What is written to %s may be lost if the machine fails: it cannot be synced (%s)",
        folder,
        reason,
    )


@contextmanager
def _naming(path: Any) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise
