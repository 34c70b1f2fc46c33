"""``vaeloss threshold``: what it reads, what it says, and its exit status."""

import gzip
import json

import numpy as np
import pytest
from PIL import Image

from sumormean.data import load
from vaeloss.cli import main
from vaeloss.collapse import collapse_threshold
from vaeloss.samples import read_samples


@pytest.fixture(scope="module")
def digits():
    return load("digits28").x_train[:300]


def told(capsys, *args):
    status = main(["threshold", *map(str, args)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def write_idx(path, x, opener=open):
    with opener(path, "wb") as file:
        file.write(bytes([0, 0, 8, x.ndim]) + np.array(x.shape, ">u4").tobytes() + x.tobytes())


def every_kind(folder, x):
    """The same bytes as files of every kind."""
    np.save(folder / "x.npy", x)
    np.savez(folder / "one.npz", x=x)
    np.savez_compressed(folder / "two.npz", labels=np.arange(len(x)), x=x)
    flat = x.reshape(len(x), -1)
    np.savetxt(folder / "plain.csv", flat, "%d", ",")
    heading = ",".join(f"p{i}" for i in range(flat.shape[1]))
    np.savetxt(folder / "headed.csv", flat, "%d", ",", header=heading, comments="")
    write_idx(folder / "x-idx3-ubyte", x)
    write_idx(folder / "x-idx3-ubyte.gz", x, gzip.open)
    (folder / "pictures" / "inside").mkdir(parents=True)
    for i, picture in enumerate(x):
        Image.fromarray(picture).save(folder / "pictures" / "inside" / f"{i:04}.png")
    names = ["x.npy", "one.npz", "two.npz:x", "plain.csv", "headed.csv", "x-idx3-ubyte"]
    return [folder / name for name in [*names, "x-idx3-ubyte.gz", "pictures"]]


def test_every_kind_of_file_holds_the_same_samples(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (6, 4, 5), np.uint8)
    for path in every_kind(tmp_path, x):
        found = read_samples(str(path))
        np.testing.assert_array_equal(found.reshape(6, -1), x.reshape(6, -1), str(path))


def test_a_folder_with_colour_is_colour(tmp_path):
    Image.new("RGB", (3, 2), (255, 0, 9)).save(tmp_path / "a.png")
    Image.new("L", (3, 2), 7).save(tmp_path / "b.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    found = read_samples(str(tmp_path))
    assert found.shape == (2, 2, 3, 3) and found[0, 0, 0].tolist() == [255, 0, 9]


@pytest.mark.parametrize(
    ("beta", "verdict", "words"),
    [
        (784, "optimal", "Collapse is optimal, for every network"),
        (200, "none-found", "no better code was found"),
        (2, "unstable", "Collapse is not stable"),
    ],
)
def test_it_says_what_a_loss_does(digits, tmp_path, capsys, beta, verdict, words):
    np.save(tmp_path / "x.npy", digits)
    status, out, err = told(capsys, tmp_path / "x.npy", "--loss-beta", beta)
    assert status == 0 and err == "" and words in out.replace("\n", " ")
    threshold = collapse_threshold(digits, interval=0.9)
    assert f"β* = {threshold:.4g} (90 % interval {threshold.interval[0]:.4g} to" in out
    assert "independent given z" in out and "autoregressive" in out and "collapse" in out.lower()
    assert max(map(len, out.splitlines())) <= 90
    status, out, _ = told(capsys, tmp_path / "x.npy", "--loss-beta", beta, "--json")
    parsed = json.loads(out)
    assert status == 0 and parsed["verdict"] == verdict
    assert parsed["threshold"] == pytest.approx(threshold) and parsed["samples"] == 300
    assert parsed["margin"] == pytest.approx(beta / threshold)


def test_bytes_need_a_unit(digits, tmp_path, capsys):
    digits = digits[:, 10:18, 10:18]
    np.save(tmp_path / "x.npy", np.rint(255 * digits).astype(np.uint8))
    path = tmp_path / "x.npy"
    for name in ["bernoulli", "gaussian", "laplace"]:
        status, out, err = told(capsys, path, "--likelihood", name)
        assert status == 2 and out == "" and "--units unit" in err and err.count("\n") == 1
    found = {}
    for units in ["unit", "symmetric", "raw"]:
        asked = ["--likelihood", "gaussian", "--units", units, "--json"]
        status, out, _ = told(capsys, path, *asked)
        found[units] = json.loads(out)["threshold"]
    expected = collapse_threshold(digits, "gaussian")
    assert found["unit"] == pytest.approx(expected, rel=1e-3)
    assert found["symmetric"] == pytest.approx(4 * found["unit"], rel=1e-5)
    assert found["raw"] == pytest.approx(255**2 * found["unit"], rel=1e-5)
    # counts and learned variances have no unit to ask for
    for name in ["poisson", "gaussian-shared", "categorical(256)"]:
        assert told(capsys, path, "--likelihood", name)[0] == 0
    np.save(tmp_path / "floats.npy", digits)
    status, _, err = told(capsys, tmp_path / "floats.npy", "--units", "unit")
    assert status == 2 and "is for whole numbers" in err


def test_labels_are_given(tmp_path, capsys):
    g = np.random.default_rng(0)
    labels = g.integers(0, 2, 400)
    np.save(tmp_path / "x.npy", g.normal(size=(400, 3)) + 9 * labels[:, None])
    np.save(tmp_path / "y.npy", labels)
    np.savetxt(tmp_path / "y.csv", labels, "%d", header="label", comments="")
    asked = [tmp_path / "x.npy", "--likelihood", "gaussian", "--loss-beta", "2"]
    assert "not stable" in told(capsys, *asked)[1]
    for name in ["y.npy", "y.csv"]:
        status, out, _ = told(capsys, *asked, "--given", tmp_path / name)
        assert status == 0 and "no better code was found" in out.replace("\n", " ")
        assert "free for each label" in out.replace("\n", " ")


def test_absolute_error_names_what_holds_it(tmp_path, capsys):
    x = np.random.default_rng(0).random((300, 5))
    x[:200, :4] = 0.0
    np.save(tmp_path / "x.npy", x[:, :4])
    status, out, _ = told(capsys, tmp_path / "x.npy", "--likelihood", "laplace", "--loss-beta", "1")
    said = out.replace("\n", " ")
    assert status == 0 and "4 of the values equal their median" in said
    assert "β* = 0" in said and "stable at every β" in said


def test_bad_input_gets_one_clear_line_and_status_2(tmp_path, capsys):
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros(4))
    np.save(tmp_path / "one.npy", np.zeros((1, 4)))
    np.save(tmp_path / "nan.npy", np.full((4, 4), np.nan))
    np.savez(tmp_path / "several.npz", a=np.zeros((2, 2)), b=np.zeros((2, 2)))
    (tmp_path / "table.csv").write_text("name,age\nAda,36\nBob,25\n")
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04")
    (tmp_path / "short-idx3-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 9, 1, 2]))
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    Image.new("L", (3, 2)).save(tmp_path / "mixed" / "a.png")
    Image.new("L", (4, 2)).save(tmp_path / "mixed" / "b.png")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("no picture")
    for name, message in [
        ("text.npy", "no array of numbers"),
        ("words.npy", "not real numbers"),
        ("objects.npy", "no array of numbers"),
        ("flat.npy", "expected (samples, values...)"),
        ("one.npy", "one sample"),
        ("nan.npy", "NaN or infinite"),
        ("several.npz", "holds a, b: write"),
        ("several.npz:c", "holds no 'c', but a, b"),
        ("table.csv", "could not convert string"),
        ("x.pt", "not a file of samples: expected .npy"),
        ("short-idx3-ubyte", "another length than its header says"),
        ("missing.npy", "no such file"),
        ("empty", "a folder without images"),
        ("mixed", "images of different sizes, such as 3x2 and 4x2"),
        ("broken", "a.png is no image"),
    ]:
        status, out, err = told(capsys, tmp_path / name)
        assert status == 2 and out == "" and message in err, (name, err)
        assert err.count("\n") == 1 and len(err) < 500, err
    np.save(tmp_path / "x.npy", np.eye(4))
    for asked, message in [
        (["--likelihood", "huber"], "unknown likelihood"),
        (["--loss-beta", "-1"], "a weight of the KL is positive"),
        (["--loss-beta", "nan"], "a weight of the KL is positive"),
        (["--given", tmp_path / "missing.csv"], "no such file"),
        (["--given", tmp_path / "nan.npy"], "given contains NaN"),
    ]:
        status, out, err = told(capsys, tmp_path / "x.npy", *asked)
        assert status == 2 and out == "" and message in err and err.count("\n") == 1, err
