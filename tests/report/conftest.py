"""What is made once for all tests of reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from market_folders import trade


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State folders of a broker and two agents that traded; tests copy what they change."""
    return trade(tmp_path_factory.mktemp("market"))
