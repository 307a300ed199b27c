"""Forks: a process forks only while nothing of ours is half done, and its child makes anew what a fork does not copy.

A fork copies memory and the one thread that forks. A lock that another thread holds then is never released in the
child, be it ours or one inside ONNX Runtime or torch; a pool has no threads any more. So all work and every locked
section happens inside `working`: who forks waits for those that are in there, chunks of work that take milliseconds,
and others wait outside meanwhile.
"""

import concurrent.futures.thread  # noqa: F401  see the end of this module
import contextlib
import ctypes
import os
import sys
from threading import Condition, get_ident
from types import TracebackType
from typing import Protocol
from weakref import WeakSet


class Renewed(Protocol):
    """What holds locks or threads."""

    def renew(self) -> None:
        """Make them anew, in the child of a fork."""


class Working:
    """Entered by any number of threads at once, and by none while the process forks. A thread may enter it twice.

    Nobody who is inside may wait for another thread, who might want to enter.
    """

    def __init__(self) -> None:
        self._inside: dict[int, int] = {}
        """How often a thread is inside."""
        self.renew()

    def renew(self) -> None:
        self._changed = Condition()
        self._forking: int | None = None
        """The thread that forks."""
        thread = get_ident()  # it may fork in a signal's handler, in the middle of its work
        self._inside = {thread: self._inside[thread]} if thread in self._inside else {}

    def __enter__(self) -> None:
        thread = get_ident()
        with self._changed:
            while self._forking not in (None, thread) and thread not in self._inside:
                self._changed.wait()
            self._inside[thread] = self._inside.get(thread, 0) + 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread = get_ident()
        with self._changed:
            self._inside[thread] -= 1
            if not self._inside[thread]:
                del self._inside[thread]
                if self._forking is not None:
                    self._changed.notify_all()

    def pause(self) -> None:
        """Wait until no other thread is inside, and let none in."""
        thread = get_ident()
        with self._changed:
            while self._forking is not None:  # another thread forks too
                self._changed.wait()
            self._forking = thread
            while self._inside.keys() - {thread}:
                self._changed.wait()

    def resume(self) -> None:
        with self._changed:
            self._forking = None
            self._changed.notify_all()


working = Working()
_renewed: "WeakSet[Renewed]" = WeakSet()
_forked = False


def renewed_in_a_child(thing: Renewed) -> None:
    """Have `thing.renew()` called in every process that is forked from this one, for as long as it lives."""
    _renewed.add(thing)


def is_forked() -> bool:
    """Whether this process was forked from one that had imported murho."""
    return _forked


def _in_child() -> None:
    global _forked
    _forked = True
    working.renew()
    for thing in list(_renewed):
        thing.renew()
    if "onnxruntime" in sys.modules:  # other children end as they always did
        _end_without_destructors()


def _end_without_destructors() -> None:
    """Have this process end as one that multiprocessing forked: at once, when Python has finished.

    ONNX Runtime starts a thread when it is imported, which a fork does not copy; its destructors, which run when a
    process exits, would wait for that thread for ever. Python's own files are flushed before.
    """
    with contextlib.suppress(AttributeError, OSError):  # not every C library has on_exit
        c = ctypes.CDLL(None)
        c.on_exit(c._exit, None)  # it gets the exit's status, and runs before what was registered before the fork


# Python's thread pools have hooks of their own. Were they registered by a later import, while another thread forks, a
# lock would be released that was never taken; so that import comes first.
if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(before=working.pause, after_in_parent=working.resume, after_in_child=_in_child)
