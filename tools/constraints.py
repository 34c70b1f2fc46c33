"""Take out of constraints.txt what torch's wheel decides: itself, triton and the CUDA packages.

`python tools/constraints.py`, the last step of `make constraints`. A CPU wheel wants none of them.
"""

import re

import site_check

PATH = site_check.ROOT / "constraints.txt"
LEFT_OUT = re.compile(r"torch=|triton=|nvidia-|cuda-|--")


def kept(text: str) -> str:
    """The lines of a list of pins that stay.

    >>> kept("--index x\\nnumpy==2\\ntorch==2\\ntorchvision==1\\ntriton==3\\nnvidia-nccl==4\\n")
    'numpy==2\\ntorchvision==1\\n'
    """
    return "".join(line for line in text.splitlines(keepends=True) if not LEFT_OUT.match(line))


if __name__ == "__main__":
    PATH.write_text(kept(PATH.read_text(encoding="utf-8")), encoding="utf-8")
