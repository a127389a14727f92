"""The tests, and what several of them use."""

import pytest

# What they assert says what was found, as in a test.
pytest.register_assert_rewrite("tests.history", "tests.crowd", "tests.excursions", "tests.schema", "tests.upgrade")
