"""What conversion refuses."""


class ConversionError(ValueError):
    """A backbone cannot be written for a target, or what was written does not compute the same."""
