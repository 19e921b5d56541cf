"""Where a study is kept: an SQLite file by default, or any storage that Optuna takes."""

from pathlib import Path
from typing import Any

from whatwhere.errors import OptionError

JOURNAL, STUDY_FILE = "journal:", "study.db"
_SECONDS = 60.0
"""That a process waits while another one writes to an SQLite file."""


def check_optuna() -> None:
    """Raises `OptionError` where Optuna is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise OptionError(
            f'searches are made through Optuna, which cannot be loaded ({error}): pip install "whatwhere[search]".'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # what ends a point is ours to tell


def sqlite_in(folder: Path) -> str:
    """The address of the file that a search keeps in its folder where no other is given."""
    return f"sqlite:///{folder.resolve() / STUDY_FILE}"


def open_storage(address: str) -> Any:
    """Optuna's storage at an address: of a database, as SQLAlchemy has them, or `journal:FILE`.

    A journal is a file that any number of machines may write to on a shared folder, where SQLite must not be used.
    Raises `OptionError` where nothing answers at the address.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    try:
        if address.startswith(JOURNAL):
            return JournalStorage(JournalFileBackend(address.removeprefix(JOURNAL)))
        if address.startswith("sqlite"):
            return optuna.storages.RDBStorage(address, engine_kwargs={"connect_args": {"timeout": _SECONDS}})
        return optuna.storages.get_storage(address)
    except Exception as error:  # whatever a driver raises
        reason = " ".join(str(error).split())[:200]
        raise OptionError(
            f"the storage {address!r} cannot be opened ({reason}): expected an address such as sqlite:///FILE,"
            " postgresql://USER@HOST/NAME or journal:FILE."
        ) from error
