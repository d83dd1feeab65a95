"""What a broker that learns nothing more goes on telling."""

from __future__ import annotations

from ksim.broker.cluster import ClusterState
from ksim.broker.log import PartitionLog
from ksim.core.values import TopicPartition


def test_a_view_stays_as_it_was() -> None:
    state = ClusterState(3, PartitionLog)
    state.create_topic("orders", 2)
    tp = TopicPartition("orders", 0)
    view = state.view()
    before = view.leader(tp).node_id, view.coordinator(7).node_id
    state.change_leader(tp)
    state.move_coordinator(7, state.next_node(before[1]))
    state.add_partitions("orders", 1)
    state.fail(3)
    assert (view.leader(tp).node_id, view.coordinator(7).node_id) == before
    assert (state.leader(tp).node_id, state.coordinator(7).node_id) != before
    assert view.counts == {"orders": 2}
    assert view.alive == [1, 2, 3]
