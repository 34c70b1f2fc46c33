"""Build emoji32.npz and emoji32-groups.json: Twemoji's pictures, 64 x 64, reduced to 32 x 32.

Run from the repository: python data/build_emoji32.py FOLDER
FOLDER is the unpacked npm package emoji-datasource-twitter 16.0.0: `npm pack` it, then `tar xzf`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).with_name("emoji32.npz")
GROUPS = OUT.with_name("emoji32-groups.json")


def small(picture: Image.Image) -> np.ndarray:
    """A picture (64 x 64, with transparency) on white, each 2 x 2 pixels averaged: (32, 32, 3)."""
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return np.asarray(flat.resize((32, 32), Image.Resampling.BOX))


def build(package: Path) -> tuple[np.ndarray, dict[str, list]]:
    """x (1906, 32, 32, 3), uint8; the names of the nine groups, and the group of each picture.

    In the order of the pictures' file names, which are code points. `emoji.json` lists every
    picture once without skin tone; "Component" has the five skin tones themselves, left out.
    """
    listed = json.loads((package / "emoji.json").read_text(encoding="utf-8"))
    kept = {e["image"]: e["category"] for e in listed if e["category"] != "Component"}
    names = list(json.loads((package / "categories.json").read_text(encoding="utf-8")))
    names.remove("Component")
    images = sorted(kept)
    folder = package / "img" / "twitter" / "64"
    x = np.stack([small(Image.open(folder / image)) for image in images])
    return x, {"groups": names, "group": [names.index(kept[image]) for image in images]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("package", type=Path, help="the folder with emoji.json in it")
    x, groups = build(parser.parse_args().package)
    np.savez_compressed(OUT, x=x)
    GROUPS.write_text(json.dumps(groups, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{OUT.name}: x {x.shape}; {GROUPS.name}: {len(groups['groups'])} groups")


if __name__ == "__main__":
    main()
