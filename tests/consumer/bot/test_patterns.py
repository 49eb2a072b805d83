"""consumer.bot.patterns."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.bot.patterns import BadPattern, Pattern

NAMES = ["BTC/USDT", "btc/eur", "ETHUP/USDT", "X3L/USDT", "BTC/USDT:USDT", "1000SHIB/USDT", "a.b", "aab", "b"]


@pytest.mark.parametrize(
    "text",
    [
        "BTC/USDT",
        "(BNB|BTC)/.*",
        ".*(_PREMIUM|BEAR|BULL|UP|DOWN|[1235][SL])/.*",
        "^BTC/.*$",
        "BTC/USDT:USDT",
        r"a\.b",
        "[^a-c]*",
        "a{2}b|b",
        "(?:a|)+b",
        r"\d{2,}SHIB.*?/\w+",
    ],
)
def test_it_matches_what_a_whole_regular_expression_matches(text: str) -> None:
    pattern = Pattern(text)
    assert [pattern.matches(name) for name in NAMES] == [
        re.fullmatch(text, name, re.IGNORECASE) is not None for name in NAMES
    ]


texts = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\.", "c"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    ),
    max_leaves=6,
)


@given(texts, st.text("ABc.", max_size=7))
def test_it_agrees_with_re(text: str, name: str) -> None:
    assert Pattern(text).matches(name) == (re.fullmatch(text, name, re.IGNORECASE) is not None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        "a)",
        "*",
        "[",
        "(?=a)",
        r"(a)\1",
        "a{3,2}",
        "((a{100}){100}){100}",
        "(" * 50 + ")" * 50,
        "x" * 201,
        "a**",
        "\\",
    ],
)
def test_what_cannot_be_used_is_refused(text: str) -> None:
    with pytest.raises(BadPattern):
        Pattern(text)


@pytest.mark.parametrize(
    "text", ["(a+)+b", ".*.*b", "(a|b)+b", "((a+)+)+b", "(a|a)*b", "(.*)(.*)(.*)(.*)x", "(a{0,20}){0,10}b"]
)
def test_no_pattern_takes_long(text: str) -> None:
    pattern, begun = Pattern(text), time.process_time()
    assert not pattern.matches("a" * 200)
    assert time.process_time() - begun < 1
    assert not pattern.matches("a" * 10_000)


def test_a_long_list_of_usual_patterns_takes_no_time() -> None:
    made = [Pattern(f"C{i}/USD") for i in range(300)] + [Pattern(f".*{i}UP/.*") for i in range(300)]
    begun = time.process_time()
    assert not any(pattern.matches(f"COIN{i}/USDT") for pattern in made for i in range(20))
    assert time.process_time() - begun < 0.2
