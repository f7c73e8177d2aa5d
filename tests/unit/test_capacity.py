"""The arithmetic of docs/capacity.md."""

import pytest

from bench.capacity import CLUSTER_NODES, DOCUMENT, MILLIONS, MOST_PARTITIONS, NODE_BYTES, Plan, written


def test_document() -> None:
    """The table is what `make docs` writes."""
    assert f"<!-- capacity -->\n\n{written()}\n\n<!-- end of capacity -->" in DOCUMENT.read_text()


@pytest.mark.parametrize("millions", MILLIONS)
def test_a_plan_carries_what_it_is_for(millions: int) -> None:
    """Its nodes hold the data, and are fast enough at the peak with a fifth to spare."""
    plan = Plan(millions * 1e6)
    assert plan.memory <= plan.primaries * NODE_BYTES
    assert plan.cores <= 0.8 * plan.primaries
    assert plan.primaries <= plan.partitions <= MOST_PARTITIONS


def test_limits_that_the_document_names() -> None:
    """The largest plan is past the nodes of a cluster, that of a tenth is not; heartbeats leave a registry's node most of its core."""
    most, tenth = Plan(10e9), Plan(1e9)
    assert (True, False) == (2 * most.primaries > CLUSTER_NODES, 2 * tenth.primaries > CLUSTER_NODES)
    assert (True, True) == (most.registry_core < 0.25, tenth.registry_core < 0.01)
