"""The published examples at their original settings, and how to run them to the end.

``configs`` has every setting, ``chainer`` and ``keras`` the networks and losses, ``runs`` the
command ``python -m sumormean reproduce NAME``.
"""
