"""The losses of a training, epoch by epoch, and how it ended."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class History:
    """One entry per whole epoch in each tuple; losses in standardised units."""

    likelihood: tuple[float, ...] = ()
    """Mean of the criterion over the training batches and their weight samples."""
    complexity: tuple[float, ...] = ()
    """Mean of KL · complexity weight; the ELBO loss is likelihood + complexity."""
    validation: tuple[float, ...] = ()
    """Mean of the criterion on the validation examples, over the same weight samples in every epoch."""
    best_epoch: int = 0
    """The epoch, counted from 1, whose weights the network has now; 0 where no epoch was finished."""
    interrupted: bool = False
    """Ended by Ctrl-C."""
    seconds: float = field(default=0.0, compare=False)
    """Wall-clock time, over all resumed parts."""

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        return len(self.validation)

    @property
    def best_validation(self) -> float:
        """Validation loss of the best epoch; infinite where no epoch was finished."""
        return self.validation[self.best_epoch - 1] if self.best_epoch else float("inf")

    @property
    def waited(self) -> int:
        """Epochs since the best one: what patience counts."""
        return self.epochs - self.best_epoch
