"""What a run says besides the article's lines."""

import pytest

from ptb import monitor


@pytest.mark.parametrize("seconds, said", [
    (0, "0 seconds"), (89, "89 seconds"), (90, "2 minutes"), (1500, "25 minutes"),
    (5400, "2 hours"), (36 * 3600 - 1, "36 hours"), (216_000, "2.5 days"),
])
def test_duration(seconds, said):
    assert monitor.duration(seconds) == said


