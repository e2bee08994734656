"""Processes of a test that meet: those that hang are started anew once, those that fail are not."""

import pytest
from ranks import together

NOTE = "import os, sys, time; folder = sys.argv[1]; open(f'{folder}/{time.monotonic_ns()}', 'x'); "
HANG_ONCE = NOTE + "time.sleep(60 if os.environ['RANK'] == '1' and 'meeting_0' in os.environ['MEETING'] else 0)"


def test_a_group_that_hangs_is_started_anew(tmp_path):
    together(["-c", HANG_ONCE], tmp_path, tmp_path, seconds=5)
    assert sum(path.is_file() for path in tmp_path.iterdir()) == 4


def test_a_group_that_always_hangs_fails_with_what_it_said(tmp_path):
    program = "import sys, time; print('waiting', file=sys.stderr, flush=True); time.sleep(60)"
    with pytest.raises(AssertionError, match=r"attempt 1: \[-9, -9\]\nwaiting\n\nwaiting\n\nattempt 2"):
        together(["-c", program], tmp_path, seconds=3)


def test_an_error_is_not_tried_again(tmp_path):
    with pytest.raises(AssertionError, match=r"(?s)attempt 1: \[1, 1\].*a good reason"):
        together(["-c", NOTE + "sys.exit('a good reason')"], tmp_path, tmp_path)
    assert sum(path.is_file() for path in tmp_path.iterdir()) == 2
