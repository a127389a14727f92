"""The tests, and what several of them use."""

from pathlib import Path

import pytest

# What any of them asserts says what was found, as in a test.
pytest.register_assert_rewrite(*(f"tests.{path.stem}" for path in Path(__file__).parent.iterdir()))
