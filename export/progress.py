"""The stage that an export is at, shown in a terminal once it has run for two seconds."""

from contextvars import ContextVar, Token
from threading import Lock, Timer
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

PATIENCE_SECONDS = 2.0

_under_way: ContextVar["Stages | None"] = ContextVar("stages", default=None)


def stage(text: str) -> None:
    """Say what the export that is under way does next; of no effect outside of one."""
    stages = _under_way.get()
    if stages is not None:
        stages.show(text)


class Stages:
    """A context manager around an export. Nothing is shown where standard error is no terminal, or not `visible`."""

    def __init__(self, visible: bool) -> None:
        console = Console(stderr=True)
        self._visible = visible and console.is_interactive
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console, transient=True, disable=not self._visible)
        self._task = self._progress.add_task("", total=None)
        self._lock = Lock()
        self._ended = False
        self._timer = Timer(PATIENCE_SECONDS, self._begin)
        self._timer.daemon = True

    def show(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    def _begin(self) -> None:
        with self._lock:
            if not self._ended:
                self._progress.start()

    def __enter__(self) -> None:
        self._before: Token[Stages | None] = _under_way.set(self)
        if self._visible:
            self._timer.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _under_way.reset(self._before)
        self._timer.cancel()
        with self._lock:
            self._ended = True
            self._progress.stop()
