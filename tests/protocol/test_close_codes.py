"""hub.protocol.close_codes."""

from __future__ import annotations

import pytest

from hub.protocol.close_codes import CloseAction, CloseCode, action_for
from hub.protocol.errors import ProtocolError

# The table of the protocol's document.
DONE, STOP, RETRY, AGAIN = CloseAction.DONE, CloseAction.STOP, CloseAction.RETRY, CloseAction.REAUTHENTICATE
TABLE = {
    **dict.fromkeys((1000, 1001), DONE),
    **dict.fromkeys((1002, 1003, 1007, 1009, 4400, 4409), STOP),
    **dict.fromkeys((1011, 4508, 4510, 4512, 4529, 1012, 1013), RETRY),
    **dict.fromkeys((4401, 4403), AGAIN),
}


@pytest.mark.parametrize(("code", "action"), TABLE.items())
def test_the_table(code: int, action: CloseAction) -> None:
    assert action_for(code) is action
    assert CloseCode(code).action is action


def test_every_code_has_an_action_a_sentence_and_a_valid_number() -> None:
    for code in CloseCode:
        assert isinstance(code.action, CloseAction)
        assert code.when
        assert 1000 <= code < 1015 or 4000 <= code <= 4999
        assert code == int(code)
    assert set(TABLE) | {1008} == set(CloseCode)


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (4402, STOP),
        (4499, STOP),
        (4500, RETRY),
        (4599, RETRY),
        (1005, RETRY),
        (1006, RETRY),
        (3000, RETRY),
        (4999, RETRY),
    ],
)
def test_the_rule_for_unknown_codes(code: int, action: CloseAction) -> None:
    assert action_for(code) is action


def test_a_breach_of_the_protocol_is_never_retried() -> None:
    for error in ProtocolError.__subclasses__():
        assert error.close_code.action is STOP
