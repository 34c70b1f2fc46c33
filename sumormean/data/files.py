"""Files that come with the library: the bundled sets, records and oracles."""

from pathlib import Path

from sumormean.data.download import DataError


def bundled(filename: str) -> Path:
    """Path of a file that comes with the library, such as `digits28.npz`, or `folder/file`.

    Raises
    ------
    DataError: there is no such file.

    >>> bundled("digits28.npz").name
    'digits28.npz'
    """
    package = Path(__file__).parents[1]
    # An installed wheel carries the files in sumormean/_data, a checkout in data.
    for folder in (package / "_data", package.parent / "data"):
        if (folder / filename).is_file():
            return folder / filename
    raise DataError(f"the bundled file {filename} is missing: install vaeloss again")
