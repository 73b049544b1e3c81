"""Find out which files of a hub dataset are which split, by the rules of the library `datasets`."""

import logging
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.core.hub import Snapshot
from pipeline.core.offline import offline
from pipeline.prompts.card import MAX_CARD_CHARS, reduced_card

CARD = "README.md"


def splits_of(snapshot: Snapshot) -> dict[str, list[str]]:
    """Return the files of each split, as README.md says or as their names do.

    The library looks at a temporary directory that holds only links to the checked files, and a README.md that names
    only paths below it. It reads none of the files.

    Raises: ValueError when there are no data files, or README.md asks for anything but some of them.
    """
    names = [name for name in snapshot.files if name != CARD]
    if any("::" in name for name in names):  # what stands behind it is an address to the library
        raise ValueError("the name of one of its files holds ::")
    folder, card = reduced_card(_card(snapshot), names)
    with TemporaryDirectory(prefix="dataset.") as temporary:
        view, cache = Path(temporary, "files").resolve(), Path(temporary, "cache")
        view.mkdir()
        below = [PurePosixPath(name) for name in names if PurePosixPath(name).is_relative_to(folder)]
        links = {view / path.relative_to(folder): str(path) for path in below}
        if not links:
            raise ValueError("it has no such files")
        for link, name in links.items():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((snapshot.directory / name).resolve())
        if card:
            (view / CARD).write_text(card, encoding="utf-8")
        found = _data_files(view, cache)
        try:
            return {str(split): list(dict.fromkeys(links[Path(path)] for path in found[split])) for split in found}
        except KeyError:
            raise ValueError("its README.md asks for what is none of its files") from None


def _card(snapshot: Snapshot) -> str:
    if CARD not in snapshot.files:
        return ""
    with (snapshot.directory / CARD).open(encoding="utf-8", errors="replace") as card:
        return card.read(MAX_CARD_CHARS)


def _data_files(view: Path, cache: Path) -> Any:
    """Return lists of paths by split, as the library finds them in a directory. Raise ValueError for all it raises."""
    with offline():
        import datasets  # not at the top: it takes a second, and is of use only when the hub has answered

        datasets.config.HF_HUB_OFFLINE = True  # its own copy of the setting
        datasets.disable_progress_bars()
        logging.getLogger("datasets").setLevel(logging.CRITICAL)
        try:
            return datasets.load_dataset_builder(str(view), cache_dir=str(cache)).config.data_files
        except Exception as error:
            said = str(error).replace(f"{view}/", "").replace(str(view), ".")
            raise ValueError(said.partition(" with any supported extension")[0] or type(error).__name__) from error
