"""The table as a notebook has it; what the site's script makes of it is in tests/site."""

import math

from sumormean.catalogue.table import Cell, Table

ROWS = [
    ["Chainer & co", Cell("D/2 = 392", 392), "collapses"],
    [Cell("keras", link="https://example.org/?a=1&b=2"), Cell("1", 1), "lives"],
    ["sigma", Cell("none", math.nan), "lives"],
]
TABLE = Table("losses", 'Losses <"all">', ["loss", "β", "verdict"], ROWS, choice="verdict")


def test_is_the_same_every_time_and_carries_data_only():
    html = TABLE._repr_html_()
    assert html == TABLE._repr_html_()
    assert '<td data-value="392">D/2 = 392</td>' in html and '<td data-value="">none</td>' in html
    assert '<a href="https://example.org/?a=1&amp;b=2">keras</a>' in html
    assert '<table id="losses" data-choice="2">' in html and "<script" not in html
