//! The latest versions of subjects.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_shards::clock;

use super::ask::Asker;
use super::{Latest, NoSchema};

/// Subjects that are remembered; beyond, all are forgotten and asked for again.
const MAX_SUBJECTS: usize = 10_000;
/// Age at which a subject's latest version is asked for again, in milliseconds.
const RENEW_MS: u64 = 60_000;
/// How long a failure is the answer to all who ask, in milliseconds.
const FAILURE_MS: u64 = 1_000;

type Subject = Arc<tokio::sync::Mutex<State>>;

#[derive(Debug)]
pub(super) struct Subjects {
    asker: Arc<Asker>,
    known: Mutex<HashMap<Box<str>, Subject, ahash::RandomState>>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    New,
    Known {
        latest: Latest,
        renew_at_ms: u64,
    },
    Failed {
        reason: NoSchema,
        until_ms: u64,
    },
}

impl Subjects {
    pub(super) fn new(asker: Arc<Asker>) -> Self {
        Self { asker, known: Mutex::default() }
    }

    /// A subject's latest version. All who ask at once share one question; a version that is old is renewed while it is
    /// used.
    pub(super) async fn latest(&self, name: &str) -> Result<Latest, NoSchema> {
        let subject = self.subject(name);
        let mut state = subject.lock().await;
        let now_ms = clock::now_ms();
        match &mut *state {
            State::Known { latest, renew_at_ms } => {
                if now_ms >= *renew_at_ms {
                    *renew_at_ms = now_ms + RENEW_MS;
                    tokio::spawn(renew(Arc::clone(&self.asker), name.into(), Arc::clone(&subject)));
                }
                return Ok(latest.clone());
            }
            State::Failed { reason, until_ms } if now_ms < *until_ms => return Err(reason.clone()),
            State::New | State::Failed { .. } => {}
        }
        let asked = ask(&self.asker, name).await;
        let now_ms = clock::now_ms();
        *state = match &asked {
            Ok(latest) => State::Known { latest: latest.clone(), renew_at_ms: now_ms + RENEW_MS },
            Err(reason) => State::Failed { reason: reason.clone(), until_ms: now_ms + FAILURE_MS },
        };
        asked
    }

    fn subject(&self, name: &str) -> Subject {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(subject) = known.get(name) {
            return Arc::clone(subject);
        }
        if known.len() >= MAX_SUBJECTS {
            known.clear();
        }
        Arc::clone(known.entry(name.into()).or_default())
    }
}

/// While the registry can't be reached, what is known stays in force.
async fn renew(asker: Arc<Asker>, name: Box<str>, subject: Subject) {
    let state = match ask(&asker, &name).await {
        Ok(latest) => State::Known { latest, renew_at_ms: clock::now_ms() + RENEW_MS },
        Err(NoSchema::Unusable(reason)) => {
            tracing::warn!(subject = &*name, %reason, "the schema of requests is gone");
            State::New
        }
        Err(NoSchema::Away(_)) => return,
    };
    *subject.lock().await = state;
}

async fn ask(asker: &Asker, name: &str) -> Result<Latest, NoSchema> {
    let found = asker.latest(name).await?;
    let missing = || NoSchema::Away("its answer has no id".into());
    Ok(Latest { id: found.id.ok_or_else(missing)?, schema: found.schema })
}
