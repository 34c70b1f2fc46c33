"""The bundled sets: what their scripts build, how they are split, and that a wheel finds them."""

import gzip
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sumormean.data import DataError, bundled, files, load, load_molecules

ROOT = Path(__file__).resolve().parents[2]


def builder(name: str, folder: Path):
    """The script `data/build_<name>.py`, which writes into another folder than it lies in."""
    path = (folder / f"build_{name}.py").absolute()
    path.write_text((ROOT / "data" / path.name).read_text(encoding="utf-8"), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"build_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_digits28_is_what_its_script_builds(tmp_path, capsys):
    builder("digits28", tmp_path).main()
    with np.load(bundled("digits28.npz")) as shipped, np.load(tmp_path / "digits28.npz") as built:
        assert sorted(shipped) == sorted(built) == ["x_test", "x_train", "y_test", "y_train"]
        for key in shipped:
            assert shipped[key].dtype == built[key].dtype == np.uint8
            assert np.array_equal(shipped[key], built[key])


@pytest.mark.parametrize(
    "name, train, test, labels",
    [("digits28", (1438, 28, 28), (359, 28, 28), 10), ("emoji32", (1525, 32, 32, 3), (381,), 9)],
)
def test_bundled_sets(name, train, test, labels):
    data = load(name)
    assert data.name == name and len(data.groups) in (0, labels)
    assert data.x_train.shape == train and data.x_test.shape == (test[0], *train[1:])
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert (x.min(), x.max()) == (0.0, 1.0)
        assert set(y) == set(range(labels)) and len(y) == len(x)
    with pytest.raises(AttributeError):
        data.name = "other"


def test_emoji32_is_split_and_labelled_by_its_files():
    emoji = load("emoji32")
    x = np.load(bundled("emoji32.npz"))["x"]
    assert np.array_equal(emoji.x_test, x[4::5] / np.float32(255))
    assert np.array_equal(emoji.x_train[::4], x[::5] / np.float32(255))
    sizes = dict(zip(emoji.groups, np.bincount([*emoji.y_train, *emoji.y_test]), strict=True))
    assert sizes["Flags"] == 270 and sizes["Smileys & Emotion"] == 169  # as emoji.json counts
    flags = emoji.x_test[emoji.y_test == emoji.groups.index("Flags")]
    assert (flags[:, 0] == 1).all() and (flags[:, -1] == 1).all(), "white above and below"


def test_script_of_emoji32(tmp_path, monkeypatch, capsys):
    """On a made-up package; the real one is not here, and gave the file with the sum in README."""
    folder = tmp_path / "package" / "img" / "twitter" / "64"
    folder.mkdir(parents=True)
    red = np.zeros((64, 64, 4), np.uint8)
    red[:, :, 0], red[:, :32, 3], red[::2, ::2, 3] = 255, 255, 0  # of each 2 x 2, one is clear
    Image.fromarray(red).save(folder / "b.png")
    Image.fromarray(red[::-1, ::-1]).save(folder / "a.png")
    listed = [("b.png", "Flags"), ("a.png", "Food"), ("skin.png", "Component")]
    text = json.dumps([{"image": image, "category": group} for image, group in listed])
    (tmp_path / "package" / "emoji.json").write_text(text)
    names = json.dumps(dict.fromkeys(["Flags", "Component", "Food"]))
    (tmp_path / "package" / "categories.json").write_text(names)
    monkeypatch.setattr(sys, "argv", ["build", str(tmp_path / "package")])
    builder("emoji32", tmp_path).main()
    x = np.load(tmp_path / "emoji32.npz")["x"]
    assert (x.shape, x.dtype) == ((2, 32, 32, 3), np.uint8)
    assert x[1, 5, 3].tolist() == [255, 64, 64] and (x[1, :, 16:] == 255).all()
    assert np.array_equal(x[0], x[1, ::-1, ::-1])
    made = json.loads((tmp_path / "emoji32-groups.json").read_text(encoding="utf-8"))
    assert made == {"groups": ["Flags", "Food"], "group": [1, 0]}


def test_molecules():
    molecules = load_molecules()
    assert molecules.tokens.shape == (19_381, 40) and molecules.tokens.dtype == np.int64
    assert len(molecules.alphabet) == 29 and molecules.alphabet == "".join(
        sorted(set("".join(molecules.strings)))
    )
    assert np.array_equal(np.unique(molecules.tokens), np.arange(30))
    assert molecules.lengths.tolist() == [len(s) for s in molecules.strings]
    assert (molecules.lengths.min(), molecules.lengths.max()) == (5, 40)
    decoded = np.array(list("\0" + molecules.alphabet))[molecules.tokens]
    assert tuple("".join(row).rstrip("\0") for row in decoded) == molecules.strings


def test_script_of_molecules(tmp_path, monkeypatch, capsys):
    """On a made-up file, and on what it once made of the real one, which it leaves as it is."""
    script, shipped = builder("molecules", tmp_path), load_molecules()
    assert script.build(shipped.strings[::-1] * 2) == list(shipped.strings)
    assert script.ALPHABET == shipped.alphabet
    made_up = ["smiles,activity", "CCCCO,CI", "CC.CCO,CM", "CCCC,CI", "[Na]CCC,CI", "BrCCBr,CA"]
    made_up += ["C" * 41 + ",CI", "C" * 40 + ",CI", "CCCCO,CM"]
    (tmp_path / "HIV.csv").write_bytes("\r\n".join(made_up).encode())
    monkeypatch.setattr(sys, "argv", ["build", str(tmp_path / "HIV.csv")])
    script.main()
    text = gzip.decompress((tmp_path / "molecules.txt.gz").read_bytes())
    assert text.decode().splitlines() == ["BrCCBr", "C" * 40, "CCCCO"]


def test_bundled_files(tmp_path, monkeypatch):
    assert bundled("digits28.npz").is_file()
    # a wheel: the files lie inside the package
    (tmp_path / "_data" / "folder").mkdir(parents=True)
    (tmp_path / "_data" / "folder" / "a.json").write_text("{}")
    monkeypatch.setattr(files, "__file__", str(tmp_path / "data" / "files.py"))
    assert bundled("folder/a.json") == tmp_path / "_data" / "folder" / "a.json"
    with pytest.raises(DataError, match="digits28.npz is missing"):
        load("digits28")
