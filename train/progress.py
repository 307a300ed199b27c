"""The progress bar of a training: epochs, the parts of the loss, the time to go. Fits 80 columns."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .history import History


class EpochBar:
    """A context manager around the epochs; `show` after each."""

    def __init__(self, epochs: int, history: History, visible: bool) -> None:
        self._progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[losses]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not visible,
        )
        self._task = self._progress.add_task("", total=epochs, completed=history.epochs, losses=_losses(history))

    def show(self, history: History) -> None:
        self._progress.update(self._task, completed=history.epochs, losses=_losses(history))

    def __enter__(self) -> "EpochBar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()


def _losses(history: History) -> str:
    if not history.epochs:
        return ""
    parts = {"likelihood": history.likelihood, "complexity": history.complexity, "validation": history.validation}
    return "  ".join(f"{name} {losses[-1]:.3g}" for name, losses in parts.items())
