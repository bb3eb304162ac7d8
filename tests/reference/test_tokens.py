"""The file of tokens that open the reference controller."""

from __future__ import annotations

import pytest

from miglet.reference.tokens import TokenFile
from tests.reference.asking import status
from tests.reference_process import TOKEN, running_controller

pytestmark = pytest.mark.integration


def test_a_changed_token_file_is_read_anew(tmp_path):
    with running_controller(tmp_path) as controller:
        controller.token_path.write_text("old-token\nnew-token\n")
        for token, answer in ("old-token", 200), ("new-token", 200), (TOKEN, 401):
            assert status(controller.endpoint, f"Bearer {token}") == answer
        controller.token_path.unlink()
        assert status(controller.endpoint, "Bearer old-token") == 401
        assert "no tokens in" in controller.log()
        controller.token_path.write_text(TOKEN)
        assert status(controller.endpoint, f"Bearer {TOKEN}") == 200


def test_an_empty_line_is_no_token(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("\n  \nA\n")
    tokens = TokenFile(path)
    assert tokens.tokens() == ["A"]
    assert tokens.accepts("A")
    assert not tokens.accepts("")
