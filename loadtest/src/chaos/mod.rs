//! Several gateways on one Kafka, thousands of audited clients, and faults by a plan that a seed gives.
//!
//! # Tour
//!
//! `plan` says which fault comes when. `director` carries it out: it starts and ends `node`s and the broker, changes the
//! weather of the `links` between clients and nodes, lets slow clients `flood` a node and fills the `disk` of another.
//! `publisher` puts events with rising numbers into every partition; each `client` of the `fleet` wants one stream of
//! each, goes to another node whenever it is cut off, and presents its cursor. Its `audit` knows what must come next;
//! whatever is skipped, repeated or missing is a `violation`. `report` says what came out.
//!
//! [`MovingClients`] is the same fleet without director and weather: whoever has it starts and ends the nodes, and is told how
//! long the clients' ways back took (`moves`).

mod audit;
mod client;
mod dice;
mod director;
mod disk;
mod fleet;
mod flood;
mod links;
mod moves;
mod moving;
mod node;
mod options;
mod plan;
mod publisher;
mod report;
mod violation;

pub use director::run_chaos;
pub use moving::{MoveOptions, MoveReport, MovingClients};
pub use options::ChaosOptions;
pub use plan::{Fault, Step, plan};
pub use report::{ChaosMoment, ChaosReport};
pub use violation::{Violation, Wrong};
