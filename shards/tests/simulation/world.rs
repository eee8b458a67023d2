//! The log, the nodes, the clients, and chance.

use std::sync::Arc;

use tidegate_shards::extractor::Extractors;

use crate::client::{Client, Place, SEATS, Seen};
use crate::node::{Checkpoints, Log, Node, Size};

const EXTRACTORS: &str = r#"{"sold":{"key":{"stable_field_index":1,"event":{"json_pointer":"/data/key"}}}}"#;
/// Partitions that a topic may grow to.
const MOST_PARTITIONS: usize = 5;
/// Rounds of the quiet end within which everything must have arrived.
const QUIET_ROUNDS: usize = 20_000;

/// A splitmix64 generator.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }
}

/// What came out of a run; the same for the same seed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) deliveries: u64,
    pub(crate) reconnects: u64,
    pub(crate) history_lost: u64,
    pub(crate) snapshots: u64,
    /// Of every event that any client saw, in the order in which they did.
    digest: u64,
}

pub(crate) struct World {
    dice: Dice,
    now_ms: u64,
    log: Log,
    checkpoints: Checkpoints,
    /// Events by partition and key.
    published: Vec<Vec<u64>>,
    /// By partition and offset: how many events of each key come before it.
    before: Vec<Vec<Box<[u64]>>>,
    nodes: Vec<Option<Node>>,
    size: Size,
    clients: Vec<Client>,
    extractors: Arc<Extractors>,
    steps: usize,
    /// Per thousand steps.
    cuts: usize,
    crashes: usize,
    growth: usize,
    reconnects: u64,
    digest: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let partitions = dice.between(1, 4);
        let keys = dice.between(1, 3);
        let clients = dice.between(1, 8);
        let clients = (0..clients).map(|_| {
            let pace = if dice.below(4) == 0 { 1 } else { dice.between(2, 20) };
            let snapshot = dice.below(3) == 0;
            Client::new(dice.below(keys), partitions, pace, snapshot)
        });
        let clients = clients.collect();
        let nodes = dice.between(1, 3);
        let mut world = Self {
            now_ms: 1_000,
            log: vec![Vec::new(); partitions],
            checkpoints: Vec::new(),
            published: vec![vec![0; keys]; partitions],
            before: vec![vec![vec![0; keys].into()]; partitions],
            nodes: Vec::new(),
            size: Size {
                shards: dice.between(1, 2),
                mailbox_events: dice.between(6, 64),
                max_plain_chars: [usize::MAX, 1, 40][dice.below(3)],
                snapshot_bytes: [1 << 20, 1 << 20, 4_000][dice.below(3)],
            },
            clients,
            extractors: Arc::new(Extractors::parse(EXTRACTORS).unwrap()),
            steps: dice.between(200, 1_200),
            cuts: dice.between(0, 30),
            crashes: dice.between(0, 6),
            growth: dice.between(0, 3),
            reconnects: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            dice,
        };
        for _ in 0..nodes {
            let node = world.started();
            world.nodes.push(Some(node));
        }
        world
    }

    fn started(&self) -> Node {
        Node::start(self.size, &self.log, &self.extractors, self.now_ms)
    }

    pub(crate) fn run(mut self) -> Outcome {
        for _ in 0..self.steps {
            self.step();
            for node in self.nodes.iter_mut().flatten() {
                node.check_bounds();
            }
        }
        self.end_quietly();
        Outcome {
            deliveries: self.clients.iter().map(|client| client.deliveries).sum(),
            reconnects: self.reconnects,
            history_lost: self.clients.iter().map(|client| client.history_lost).sum(),
            snapshots: self.clients.iter().map(|client| client.snapshots).sum(),
            digest: self.digest,
        }
    }

    fn step(&mut self) {
        let node = self.dice.below(self.nodes.len());
        match self.dice.below(1_000) {
            chance if chance < self.crashes => self.crash(node),
            chance if chance < self.crashes + self.cuts => {
                let client = self.dice.below(self.clients.len());
                self.cut(client);
            }
            chance if chance < 150 => self.write(),
            chance if chance < 150 + self.growth => self.grow(),
            chance if chance < 400 => self.ingest(node),
            chance if chance < 600 => self.take_mail(node),
            chance if chance < 650 => self.catch_up(node),
            chance if chance < 900 => {
                let client = self.dice.below(self.clients.len());
                self.visit(client);
            }
            _ => {
                let passed_ms = self.dice.between(1, 400);
                self.pass(passed_ms as u64);
            }
        }
    }

    /// Some events are written, of any key and size.
    fn write(&mut self) {
        for _ in 0..self.dice.between(1, 6) {
            let partition = self.dice.below(self.log.len());
            let key = self.dice.below(self.published[partition].len());
            let padding = self.dice.below(300);
            self.append(partition, key, padding);
        }
    }

    /// The topic gets one more partition, which each node finds in its own time.
    fn grow(&mut self) {
        if self.log.len() == MOST_PARTITIONS {
            return;
        }
        let keys = self.published[0].len();
        self.log.push(Vec::new());
        self.published.push(vec![0; keys]);
        self.before.push(vec![vec![0; keys].into()]);
        self.clients.iter_mut().for_each(Client::one_more_partition);
        self.nodes.iter_mut().flatten().for_each(Node::one_more_partition);
    }

    fn append(&mut self, partition: usize, key: usize, padding: usize) {
        let (id, sequence, padding) = (self.log[partition].len(), self.published[partition][key], "x".repeat(padding));
        let seat = sequence % SEATS;
        self.log[partition].push(format!(
            r#"{{"specversion":"1.0","type":"sold","source":"/","id":"{partition}-{id}","subject":"k{key}-{seat}","data":{{"key":"k{key}","partition":{partition},"sequence":{sequence},"x":"{padding}"}}}}"#
        ));
        self.published[partition][key] += 1;
        self.before[partition].push(self.published[partition].clone().into());
    }

    fn ingest(&mut self, node: usize) {
        let (partition, most) = (self.dice.below(self.log.len()), self.dice.between(1, 12));
        let refuse = self.dice.below(10) == 0;
        let (cached, kept) = (self.dice.below(self.log.len()), self.dice.between(1, 12));
        if let Some(node) = &mut self.nodes[node] {
            node.snapshots.follow(&self.log, cached, kept);
            node.ingest(&self.log, partition, most);
            node.checkpoint(&mut self.checkpoints, refuse, self.now_ms);
        }
    }

    fn take_mail(&mut self, node: usize) {
        let (shard, most) = (self.dice.below(self.size.shards), self.dice.between(1, 16));
        if let Some(node) = &mut self.nodes[node] {
            node.take_mail(shard, most);
        }
    }

    fn catch_up(&mut self, node: usize) {
        let shard = self.dice.below(self.size.shards);
        let give_up = self.dice.below(20) == 0;
        if let Some(node) = &mut self.nodes[node] {
            node.snapshots.step(give_up);
            node.catch_up(shard, &self.log, &self.checkpoints);
        }
    }

    fn pass(&mut self, passed_ms: u64) {
        self.now_ms += passed_ms;
        for node in self.nodes.iter_mut().flatten() {
            node.tick(self.now_ms);
        }
    }

    /// A node crashes, or comes back.
    fn crash(&mut self, place: usize) {
        if self.nodes[place].take().is_none() {
            self.nodes[place] = Some(self.started());
            return;
        }
        for client in 0..self.clients.len() {
            if self.clients[client].seat.is_some_and(|seat| seat.node == place) {
                self.leave(client);
            }
        }
    }

    /// The network breaks a connection; the node notices at once.
    fn cut(&mut self, client: usize) {
        let Some(seat) = self.clients[client].seat else { return };
        if let Some(node) = &mut self.nodes[seat.node] {
            node.remove(seat.shard, seat.address);
        }
        self.leave(client);
    }

    fn leave(&mut self, client: usize) {
        let back_ms = self.now_ms + self.dice.between(0, 2_000) as u64;
        self.clients[client].cut(back_ms);
        self.reconnects += 1;
    }

    /// A client pulls some frames, or comes back.
    fn visit(&mut self, number: usize) {
        match self.clients[number].seat {
            Some(seat) => self.pull(number, seat),
            None if self.clients[number].back_ms <= self.now_ms => {
                let place = self.dice.below(self.nodes.len());
                let Some(node) = &mut self.nodes[place] else { return };
                let client = &mut self.clients[number];
                let shard = self.dice.below(node.shards());
                let address = node.open(shard, &client.subscriptions(), client.cursor.as_deref(), self.now_ms);
                client.seat = Some(Place { node: place, shard, address });
            }
            None => {}
        }
    }

    fn pull(&mut self, number: usize, seat: Place) {
        let Some(node) = &mut self.nodes[seat.node] else { return };
        for _ in 0..self.clients[number].pace {
            if node.has_ended(seat.shard, seat.address) {
                return self.cut(number);
            }
            let Some(frame) = node.pull(seat.shard, seat.address) else { return };
            let client = &mut self.clients[number];
            // Of a partition that it has not found yet, nothing was read.
            let unread = |(before, next): (&Vec<Box<[u64]>>, Option<u64>)| {
                next.map_or(u64::MAX, |next| before[next as usize][client.key])
            };
            let unread: Vec<u64> = self.before.iter().zip(node.next_to_read()).map(unread).collect();
            let published: Vec<u64> = self.published.iter().map(|partition| partition[client.key]).collect();
            let digest = &mut self.digest;
            client.take(&frame, &unread, &published, |seen| {
                if let Seen::Event { partition, sequence } = seen {
                    for part in [number as u64, partition as u64, sequence] {
                        *digest = (*digest ^ part).wrapping_mul(0x0100_0000_01b3);
                    }
                }
            });
        }
    }

    /// No more faults: everybody is connected, everything is read, and everybody must have all.
    fn end_quietly(&mut self) {
        for place in 0..self.nodes.len() {
            if self.nodes[place].is_none() {
                self.nodes[place] = Some(self.started());
            }
        }
        // Whoever is connected from here on sees at least one event of each partition.
        let mut rounds = 0;
        while self.clients.iter().any(|client| client.seat.is_none()) {
            self.round(&mut rounds);
        }
        self.write_everywhere();
        while self.short().is_some() {
            self.round(&mut rounds);
        }
        for number in 0..self.clients.len() {
            let key = self.clients[number].key;
            let published: Vec<u64> = self.published.iter().map(|partition| partition[key]).collect();
            self.clients[number].check_snapshot_alone(&published);
            self.cut(number);
        }
        for node in self.nodes.iter_mut().flatten() {
            for partition in 0..self.log.len() {
                node.ingest(&self.log, partition, usize::MAX);
            }
            for shard in 0..self.size.shards {
                node.take_mail(shard, usize::MAX);
                node.catch_up(shard, &self.log, &self.checkpoints);
                node.take_mail(shard, usize::MAX);
            }
            node.check_empty();
        }
    }

    fn write_everywhere(&mut self) {
        for partition in 0..self.log.len() {
            for key in 0..self.published[partition].len() {
                self.append(partition, key, 0);
            }
        }
    }

    fn round(&mut self, rounds: &mut usize) {
        *rounds += 1;
        if *rounds > QUIET_ROUNDS {
            panic!("something is missing for ever: {}", self.short().unwrap_or_else(|| "a connection".to_owned()));
        }
        for place in 0..self.nodes.len() {
            for partition in 0..self.log.len() {
                if let Some(node) = &mut self.nodes[place] {
                    node.snapshots.follow(&self.log, partition, 8);
                    node.ingest(&self.log, partition, 8);
                    node.checkpoint(&mut self.checkpoints, false, self.now_ms);
                }
            }
            for shard in 0..self.size.shards {
                if let Some(node) = &mut self.nodes[place] {
                    node.snapshots.step(false);
                    node.take_mail(shard, 8);
                    node.catch_up(shard, &self.log, &self.checkpoints);
                }
            }
        }
        for client in 0..self.clients.len() {
            // Nobody is slow any more.
            self.clients[client].pace = 100;
            self.visit(client);
        }
        self.pass(50);
    }

    /// The first client that misses something.
    fn short(&self) -> Option<String> {
        self.clients.iter().enumerate().find_map(|(number, client)| {
            let published: Vec<u64> = self.published.iter().map(|partition| partition[client.key]).collect();
            let short = client.short_of(&published);
            (!short.is_empty()).then(|| format!("client {number} (partition, next, published): {short:?}"))
        })
    }
}
