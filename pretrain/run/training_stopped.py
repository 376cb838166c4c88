"""The error that ends a run on purpose."""


class TrainingStoppedError(RuntimeError):
    """A guard has ended the run; the message says why and what to do."""
