//! A node of its own without Kafka, whose state file meets a full disk: what it acknowledged must be there after a crash.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::node::{Node, Recipe};
use super::violation::Violations;
use crate::error::LoadError;
use crate::sys;

const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "the node with a state file";

/// The node and what it has acknowledged.
pub(super) struct StateNode {
    recipe: Recipe,
    node: Node,
    internal: SocketAddr,
    acknowledged: Vec<String>,
    asked: u32,
}

impl StateNode {
    /// Starts it; `recipe` names its `STATE_DIR`.
    pub(super) fn start(recipe: Recipe) -> Result<Self, LoadError> {
        let mut node = Node::start(NAME, &recipe)?;
        let addresses = node.wait_until_ready(PATIENCE).map_err(LoadError::Scenario)?;
        Ok(Self { recipe, node, internal: addresses.internal, acknowledged: Vec::new(), asked: 0 })
    }

    /// Full disk, then a crash.
    pub(super) fn exercise(&mut self, violations: &Violations) -> Result<(), LoadError> {
        if let Err(what) = self.try_exercise()? {
            violations.process(NAME, format!("{what}; {}", self.node.last_words()));
            // The next exercise begins with a node that knows what it should.
            self.acknowledged.clear();
            self.node.kill();
            self.restart().unwrap_or_else(|what| violations.process(NAME, what));
        }
        Ok(())
    }

    fn try_exercise(&mut self) -> Result<Result<(), String>, LoadError> {
        let limited =
            |limit| sys::limit_file_bytes(self.node.pid(), limit).map_err(LoadError::system("setting a limit"));
        limited(Some(0))?;
        let refused = self.define();
        let lives = call(self.internal, "GET", "/v3/apis", "");
        let limited =
            |limit| sys::limit_file_bytes(self.node.pid(), limit).map_err(LoadError::system("setting a limit"));
        limited(None)?;
        Ok(refused.and_then(|status| {
            if (200..300).contains(&status) {
                return Err(format!("acknowledged a change with {status} while its disk was full"));
            }
            let (status, _) = lives?;
            if status != 200 {
                return Err(format!("answered a list of APIs with {status} while its disk was full"));
            }
            let status = self.define()?;
            if !(200..300).contains(&status) {
                return Err(format!("refused a change with {status} though its disk had room again"));
            }
            self.node.kill();
            self.restart()?;
            self.compare()
        }))
    }

    fn restart(&mut self) -> Result<(), String> {
        self.node = Node::start(NAME, &self.recipe).map_err(|error| error.to_string())?;
        self.internal = self.node.wait_until_ready(PATIENCE)?.internal;
        Ok(())
    }

    /// Makes one more API definition; the status of the answer.
    fn define(&mut self) -> Result<u16, String> {
        self.asked += 1;
        let id = format!("chaos-{}", self.asked);
        let endpoints = serde_json::json!([{ "id": "e", "method": "GET", "path_regex": format!("/{id}") }]);
        let definition = serde_json::json!({
            "id": id, "name": id, "auth_type": "none",
            "version_data": { "default": { "endpoints": endpoints } },
            "proxy": { "use_env": false, "target_url": "http://127.0.0.1", "port": 1 },
        });
        let (status, _) = call(self.internal, "POST", "/v3/apis", &definition.to_string())?;
        if (200..300).contains(&status) {
            self.acknowledged.push(id);
        }
        Ok(status)
    }

    fn compare(&self) -> Result<(), String> {
        let (status, body) = call(self.internal, "GET", "/v3/apis", "")?;
        let list: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let known = |id: &String| list.as_array().is_some_and(|list| list.iter().any(|api| api["id"] == **id));
        match self.acknowledged.iter().find(|id| !known(id)) {
            _ if status != 200 => Err(format!("answered a list of APIs with {status} after a crash")),
            Some(lost) => Err(format!("has lost {lost} in a crash, which it had acknowledged")),
            None => Ok(()),
        }
    }
}

/// One HTTP request; status and body.
fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> Result<(u16, Vec<u8>), String> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    let exchange = || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error: std::io::Error| format!("did not answer {method} {path}: {error}"))?;
    let unreadable = || format!("answered {method} {path} with what is no HTTP");
    let head = crate::wire::http::parse_head(&answer).ok().flatten().ok_or_else(unreadable)?;
    let mut scratch = Vec::new();
    let body = crate::wire::http::whole_body(head.framing, &answer[head.head_bytes..], true, &mut scratch);
    let (body, _) = body.ok().flatten().ok_or_else(unreadable)?;
    Ok((head.status, body.to_vec()))
}
