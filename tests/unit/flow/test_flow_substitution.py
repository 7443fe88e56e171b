"""Variables in flow files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowdex_orchestrator.flow.substitution import SubstitutionError, substitute
from flowdex_orchestrator.flow.yaml_reader import resolve_scalar

ENV = {"X": "x", "N": "2", "F": "1.5", "B": "true", "L": "[grpc, 2]", "E": "", "D": "$X", "NULL": "null"}
CONTEXT = {"x": "cx", "n": 3, "obj": {"a": 1}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("$X", "x"),
        ("${X}", "x"),
        ("${{ ENV.X }}", "x"),
        ("${{ env.X }}", "x"),
        ("${{ENV.X}}", "x"),
        ("${{ CONTEXT.x }}", "cx"),
        ("${{ context.x }}", "cx"),
        ("${{ x }}", "cx"),
        (" $X ", "x"),
        ("a $X-${X}.${{ ENV.X }}", "a x-x.x"),
        # alone, a variable has the type YAML reads in it
        ("${{ ENV.N }}", 2),
        ("$F", 1.5),
        ("${B}", True),
        ("$L", ["grpc", 2]),
        ("$E", None),
        ("$NULL", None),
        ("${{ CONTEXT.n }}", 3),
        ("${{ obj }}", {"a": 1}),
        # in a text it is text
        ("1$N", "12"),
        ("${{ n }}0", "30"),
        # no variables
        ("$", "$"),
        ("a$", "a$"),
        ("$5", "$5"),
        ("^a$|b", "^a$|b"),
        ("$$", "$"),
        ("$$X", "$X"),
        ("$$$X", "$x"),
        ("$$${X}", "$x"),
        # once, not again
        ("$D", "$X"),
    ],
)
def test_substitute(text: str, value: object) -> None:
    found = substitute(text, ENV, CONTEXT, resolve_scalar)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["$Y", "${Y}", "${}", "${a b}", "${{ }}", "${{ ENV. }}", "${{ ENV.a-b }}", "${{ y }}"])
def test_undefined(text: str) -> None:
    with pytest.raises(SubstitutionError):
        substitute(text, ENV, CONTEXT)


@given(st.text())
def test_text_without_dollars_is_left_alone(text: str) -> None:
    text = text.replace("$", "")
    assert substitute(text, ENV, CONTEXT) == text


@given(st.text())
def test_doubled_dollars_give_the_text_back(text: str) -> None:
    assert substitute(text.replace("$", "$$"), {}, {}) == text


@given(st.text(alphabet="${} ENVCONTEXT.xX_-", max_size=30))
def test_it_gives_a_value_or_a_substitution_error(text: str) -> None:
    try:
        substitute(text, ENV, CONTEXT, resolve_scalar)
    except SubstitutionError as error:
        assert str(error)


@given(st.text(max_size=20))
def test_scalars_of_any_text(text: str) -> None:
    assert isinstance(resolve_scalar(text), (str, int, float, list, type(None)))
