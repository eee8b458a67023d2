//! The state file: definitions that were changed over the internal API, where there is no Kafka.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// Name of the file in `STATE_DIR`.
const NAME: &str = "apis.json";

/// A list of records in one file, replaced as a whole.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    records: Mutex<BTreeMap<String, Value>>,
}

impl StateFile {
    /// Opens the file in `folder`, which is made if it isn't there.
    ///
    /// # Errors
    /// The folder can't be made, or the file is there and isn't what was written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(NAME);
        let explain = |error: io::Error| {
            let text = format!("API definitions can't be kept in {} (STATE_DIR): {error}", path.display());
            io::Error::new(error.kind(), text)
        };
        fs::create_dir_all(folder).map_err(explain)?;
        let list = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Vec<Value>>(&bytes).map_err(|error| {
                let wrong = format!("it is not the list of API definitions that was written ({error}); move it away");
                explain(io::Error::new(io::ErrorKind::InvalidData, wrong))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(explain(error)),
        };
        let id = |record: &Value| record.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let records = list.into_iter().map(|record| (id(&record), record)).collect();
        Ok(Self { path, records: Mutex::new(records) })
    }

    /// The records in it.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Adds a record, or puts it in the place of the one with the same id: written beside, made durable, then renamed.
    ///
    /// # Errors
    /// The disk is full, or the folder may not be written to; the file is as before then.
    pub fn write(&self, id: &str, record: Value) -> io::Result<()> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let before = records.insert(id.to_owned(), record);
        let written = self.replace(&records.values().collect::<Vec<_>>());
        if written.is_err() {
            match before {
                Some(before) => records.insert(id.to_owned(), before),
                None => records.remove(id),
            };
        }
        written
    }

    fn replace(&self, records: &[&Value]) -> io::Result<()> {
        let beside = self.path.with_extension("json.new");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(records)?)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&beside, &self.path)?;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_there_when_the_file_is_opened_again() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let below = folder.path().join("a/b");
        let file = StateFile::open(&below).expect("the folder is made");
        file.write("x", json!({ "id": "x", "name": "1" })).expect("it can be written");
        file.write("y", json!({ "id": "y" })).expect("it can be written");
        file.write("x", json!({ "id": "x", "name": "2" })).expect("it can be written");
        let again = StateFile::open(&below).expect("it is there");
        assert_eq!(again.records(), [json!({ "id": "x", "name": "2" }), json!({ "id": "y" })]);
        let names: Vec<_> =
            fs::read_dir(&below).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(names, [NAME], "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_something_else_is_left_alone_and_named() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join(NAME);
        fs::write(&path, "{ not a list").expect("it can be written");
        let error = StateFile::open(folder.path()).expect_err("it isn't ours");
        assert!(error.to_string().contains(NAME) && error.to_string().contains("STATE_DIR"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("it is there"), "{ not a list");
    }

    #[test]
    fn a_write_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let file = StateFile::open(folder.path()).expect("an empty one");
        fs::remove_dir_all(folder.path()).expect("it can be removed");
        file.write("x", json!({ "id": "x" })).expect_err("there is no folder");
        assert_eq!(file.records(), [json!(null); 0]);
    }
}
