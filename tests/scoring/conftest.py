from pathlib import Path

import pytest
from scoring_setting import ScoringSetting

from ranker.data.state import load_state


@pytest.fixture(scope="session")
def setting(prepared_synthetic: Path) -> ScoringSetting:
    return ScoringSetting(load_state(prepared_synthetic / "state"))
