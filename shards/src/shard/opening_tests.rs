//! Clients of a node that does not know yet, or not as well as another one, which partitions there are.

use super::replay_tests::{Client, Node};

/// A client that has seen an event of each of two partitions, on another node that has found the first of them only.
fn moved_to_a_node_that_knows_one_partition_of_two() -> (Node, Client) {
    let mut node = Node::new(1 << 20, false);
    let mut client = Client::new();
    client.connect(&mut node);
    node.settle();
    (0..2).for_each(|partition| node.publish(partition, "a"));
    node.settle();
    client.read(&node.log);
    client.disconnect(&mut node);
    let mut other = Node::unopened();
    other.log = std::mem::take(&mut node.log);
    other.publisher.positions().start(0, 0, 0, 1);
    other.publisher.positions().opened();
    client.connect(&mut other);
    other.settle();
    (other, client)
}

#[test]
fn a_client_that_comes_to_a_node_which_knows_no_partition_yet_waits_and_misses_nothing() {
    let mut node = Node::new(1 << 20, true);
    let mut client = Client::new();
    client.connect(&mut node);
    node.settle();
    client.disconnect(&mut node);
    let (log, mut young) = (std::mem::take(&mut node.log), Node::unopened());
    young.log = log;
    young.log[0].extend(["a"; 3]);
    client.connect(&mut young);
    young.settle();
    client.read(&young.log);
    assert_eq!(client.seen, 0);
    young.publisher.positions().start(0, 0, 0, 3);
    young.settle();
    young.publisher.positions().start(1, 0, 1, 0);
    young.publisher.positions().opened();
    young.shard.tick(1_000);
    young.settle();
    client.read(&young.log);
    assert_eq!((client.seen, client.losses), (3, 0));
}

#[test]
fn a_client_that_has_seen_a_partition_which_the_node_has_not_found_waits_until_it_has() {
    let (mut other, mut client) = moved_to_a_node_that_knows_one_partition_of_two();
    // The partition has appeared since, and is read from its beginning.
    other.publisher.positions().start(1, 0, 1, 0);
    other.publish_again(1, 0);
    other.shard.tick(1_000);
    other.settle();
    other.publish(1, "a");
    other.settle();
    client.read(&other.log);
    assert_eq!((client.seen, client.losses), (3, 0));
}

#[test]
fn a_client_that_has_seen_a_partition_which_the_node_never_finds_is_told() {
    let (mut other, mut client) = moved_to_a_node_that_knows_one_partition_of_two();
    client.read(&other.log);
    assert_eq!(client.losses, 0, "it waits");
    other.shard.tick(10_000);
    other.settle();
    other.publish(0, "a");
    other.settle();
    client.read(&other.log);
    assert_eq!((client.seen, client.losses), (3, 1));
}

#[test]
fn a_first_subscription_is_not_in_force_before_the_node_knows_where_it_reads() {
    let mut node = Node::unopened();
    node.publisher.positions().start(0, 0, 0, 0);
    let mut client = Client::new();
    client.connect(&mut node);
    node.settle();
    assert!(!client.is_in_force(&mut node), "the second partition's place isn't known");
    node.publisher.positions().start(1, 0, 1, 0);
    node.publisher.positions().opened();
    node.settle();
    assert!(client.is_in_force(&mut node));
}
