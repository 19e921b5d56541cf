"""The command line: each verb calls one function of the library; nothing is computed here."""

import sys

from whatwhere.cli.console import err
from whatwhere.cli.verbs import app
from whatwhere.errors import FormatError, InputError, OptionError, RunError, TrainingError, WhatwhereError, WriteError
from whatwhere.parallel import helps
from whatwhere.process_memory import keep_freed_memory

EXIT_CODES: dict[type[WhatwhereError], int] = {
    OptionError: 2,
    InputError: 3,
    FormatError: 3,
    RunError: 4,
    WriteError: 4,
    TrainingError: 5,
}
"""0 well, 2 wrong options, 3 unusable data, 4 a folder or file that cannot be used, 5 training failed, 130 Ctrl-C."""


def main() -> None:
    """Runs the command line; an error that the user can mend is one message, not a traceback."""
    keep_freed_memory()
    try:
        app(standalone_mode=True)
    except WhatwhereError as error:
        if helps():  # the first process says it; one that ends badly would have it killed
            sys.exit(0)
        err.print(f"[bold red]error:[/] {type(error).__name__}:", end=" ")
        err.print(str(error), markup=False)
        codes = (code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
        sys.exit(next(codes, 1))
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(130)
