"""Which parameters an executor sees."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowdex_orchestrator.worker.endpoints import parameters_for

names = st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=5)
values = st.dictionaries(names, st.integers(), max_size=4)


def test_what_is_said_for_one_executor_counts_there_only():
    parameters = {"limit": 5, "encoder": {"limit": 3}, "indexer__limit": 2, "ranker__x": 1}
    assert parameters_for(["encoder"], parameters) == {"limit": 3, "encoder": {"limit": 3}}
    assert parameters_for(["indexer"], parameters) == {"limit": 2, "encoder": {"limit": 3}}
    assert parameters_for(["segmenter"], parameters) == {"limit": 5, "encoder": {"limit": 3}}


def test_the_last_name_counts_most():
    parameters = {"BertEncoder": {"a": 1, "b": 1}, "encoder": {"b": 2}}
    assert parameters_for(["BertEncoder", "encoder"], parameters) == {**parameters, "a": 1, "b": 2}


def test_keys_that_only_look_specific_stay():
    parameters = {"__results__": {"a": {}}, "__x": 1, "x__": 2, "encoder": 3}
    assert parameters_for(["encoder"], parameters) == parameters


@given(values, names)
def test_nothing_is_changed_without_a_specific_key(parameters, name):
    before = dict(parameters)
    assert parameters_for([name], parameters) == {key: value for key, value in before.items() if "__" not in key}
    assert parameters == before


@given(values, names, values)
def test_overrides_win(parameters, name, overrides):
    merged = parameters_for([name], {**parameters, name: overrides})
    assert all(merged[key] == value for key, value in overrides.items())
