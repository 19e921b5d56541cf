"""The exceptions that whatwhere raises on purpose; all derive from `WhatwhereError`."""


class WhatwhereError(Exception):
    """Base of every error that a user can mend: the message says what was expected, what was got and what to do."""


class InputError(WhatwhereError, ValueError):
    """An array or argument is not what it must be (shape, range, finite values)."""


class OptionError(InputError):
    """An option is unknown, out of range, or does not fit the other options."""


class FormatError(WhatwhereError, ValueError):
    """A file or folder is missing, unreadable, truncated, or not in the format that it should have."""


class RunError(WhatwhereError, RuntimeError):
    """A run's folder cannot be used as asked: it holds another run already, or nothing to resume."""


class TrainingError(WhatwhereError, RuntimeError):
    """Training cannot go on, for example because the loss is no longer finite."""


class WriteError(WhatwhereError, OSError):
    """A file could not be written: the disk is full, or the folder cannot be written. What stood there is unharmed."""
