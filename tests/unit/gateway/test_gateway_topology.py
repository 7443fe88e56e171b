"""Plans: who is called for an endpoint, in which order, with whose output."""

from __future__ import annotations

import pytest

from flowdex.errors import InvalidInput, NotFound
from flowdex_orchestrator.gateway.topology import Plan, Topology

CHAIN = {"segmenter": ["gateway"], "encoder": ["segmenter"], "indexer": ["encoder"], "ranker": ["indexer"]}
BINDS = {
    "segmenter": {"/index"},
    "encoder": {"/index", "/search", "/encode", "_jina_dry_run_"},
    "indexer": {"/index", "/search", "/delete"},
    "ranker": {"/search"},
}


def calls(plan: Plan) -> dict[str, list[str]]:
    """Each executor of the plan with those whose replies it takes."""
    return {step.executor: [plan.steps[source].executor for source in step.sources] for step in plan.steps}


def outputs(plan: Plan) -> list[str]:
    return [plan.steps[output].executor for output in plan.outputs]


@pytest.mark.parametrize(
    ("endpoint", "chain"),
    [
        ("/index", ("segmenter", "encoder", "indexer")),
        ("/search", ("encoder", "indexer", "ranker")),
        ("/encode", ("encoder",)),
        ("/delete", ("indexer",)),
    ],
)
def test_the_default_flow(endpoint: str, chain: tuple[str, ...]) -> None:
    plan = Topology(CHAIN).plan(endpoint, BINDS)
    assert plan.chain == chain
    assert outputs(plan) == [chain[-1]]


def test_the_default_endpoint_takes_everything() -> None:
    binds = BINDS | {"ranker": {"/default"}}
    assert Topology(CHAIN).plan("/delete", binds).chain == ("indexer", "ranker")
    assert Topology(CHAIN).plan("/anything", binds).chain == ("ranker",)


def test_branches_join() -> None:
    needs = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    plan = Topology(needs).plan("/x", {name: {"/x"} for name in needs})
    assert plan.chain is None
    assert calls(plan) == {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    assert outputs(plan) == ["d"]


def test_the_order_of_needs_is_the_order_of_the_merge() -> None:
    needs = {"a": [], "b": [], "d": ["b", "a"]}
    plan = Topology(needs).plan("/x", {name: {"/x"} for name in needs})
    assert calls(plan)["d"] == ["b", "a"]


def test_a_join_that_does_not_bind_merges_all_the_same() -> None:
    needs = {"a": [], "b": [], "join": ["a", "b"]}
    plan = Topology(needs).plan("/x", {"a": {"/x"}, "b": {"/x"}, "join": set()})
    assert calls(plan) == {"a": [], "b": []}
    assert outputs(plan) == ["a", "b"]
    assert plan.chain is None


def test_a_branch_without_a_server_takes_no_part() -> None:
    needs = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    plan = Topology(needs).plan("/x", {"a": {"/x"}, "b": set(), "c": {"/x"}, "d": {"/x"}})
    assert plan.chain == ("a", "c", "d")


def test_both_branches_skipped_leave_one_input() -> None:
    needs = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}
    plan = Topology(needs).plan("/x", {"a": {"/x"}, "b": set(), "c": set(), "d": {"/x"}})
    assert plan.chain == ("a", "d")


def test_the_last_executor_gives_the_answer_and_leaves_only_listen() -> None:
    needs = {"a": [], "listener": ["a"], "b": ["a"]}
    plan = Topology(needs).plan("/x", {name: {"/x"} for name in needs})
    assert outputs(plan) == ["b"]
    assert [step.awaited for step in plan.steps] == [True, False, True]
    assert plan.chain is None


def test_a_floating_executor_is_not_the_last() -> None:
    needs = {"a": [], "b": ["a"], "listener": ["a"]}
    plan = Topology(needs, floating=["listener"]).plan("/x", {name: {"/x"} for name in needs})
    assert outputs(plan) == ["b"]
    assert not plan.steps[2].awaited


def test_an_endpoint_of_listeners_alone_is_answered_by_them() -> None:
    needs = {"a": [], "listener": ["a"], "b": ["a"]}
    plan = Topology(needs).plan("/stats", {"a": set(), "listener": {"/stats"}, "b": set()})
    assert plan.chain == ("listener",)
    assert outputs(plan) == ["listener"]


def test_executors_may_be_listed_before_what_they_need() -> None:
    assert Topology({"b": ["a"], "a": []}).executors == ("a", "b")
    with pytest.raises(ValueError, match="wait for each other"):
        Topology({"a": ["b"], "b": ["a"]})


def test_target_executor_matches_from_the_start_as_in_jina() -> None:
    topology = Topology(CHAIN)
    assert topology.plan("/search", BINDS, "encoder").chain == ("encoder",)
    assert topology.plan("/search", BINDS, "(enc|rank)").chain == ("encoder", "ranker")
    assert topology.plan("/search", BINDS, r"(?:encoder)\Z").chain == ("encoder",)  # as Python writes the end
    with pytest.raises(NotFound):
        topology.plan("/search", BINDS, r"encoder\\Z")  # a backslash, and a letter
    assert topology.plan("/search", BINDS, "").chain == ("encoder", "indexer", "ranker")
    with pytest.raises(NotFound, match=r"coder.*encoder, indexer, ranker"):
        topology.plan("/search", BINDS, "coder")
    with pytest.raises(InvalidInput, match=r"'\(' is not a regular expression of RE2: missing \)"):
        topology.plan("/search", BINDS, "(")


@pytest.mark.timeout(5)
@pytest.mark.parametrize("target", ["(((.*)*)*)*x", "((encoder)+)+x", "(.*,){16}x", "(a?){25}a{25}x"])
def test_an_expression_that_backtracks_for_ever_elsewhere_is_answered_at_once(target: str) -> None:
    name = "encoder" * 9
    with pytest.raises(NotFound, match="matches target_executor"):
        Topology({name: []}).plan("/search", {name: {"/search"}}, target)


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    ("target", "message"),
    [("(" * 5000 + ")" * 5000, "10,000 characters; 256 are allowed"), (r"[\w\W]{1000}" * 20, "pattern too large")],
)
def test_an_expression_that_costs_much_to_compile_is_refused(target: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Topology(CHAIN).plan("/search", BINDS, target)


def test_an_unknown_endpoint_names_the_nearest_and_all() -> None:
    with pytest.raises(NotFound) as caught:
        Topology(CHAIN).plan("/serch", BINDS)
    message = str(caught.value)
    assert "did you mean '/search'?" in message
    assert "/delete, /encode, /index, /search" in message
    assert "_jina_dry_run_" not in message
    with pytest.raises(NotFound, match="names no endpoint"):
        Topology(CHAIN).plan("", BINDS)


def test_endpoints_name_who_serves_them() -> None:
    assert Topology(CHAIN).endpoints(BINDS) == {
        "/delete": ["indexer"],
        "/encode": ["encoder"],
        "/index": ["segmenter", "encoder", "indexer"],
        "/search": ["encoder", "indexer", "ranker"],
    }
