//! The state file of blacklisted sessions, where there is no Kafka: a line per entry is appended and made durable; when the lines
//! of past entries outweigh the others, the file is written anew beside itself and renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use tidegate_shards::sessions::record::Record;

/// Name of the file in `STATE_DIR`.
const NAME: &str = "sessions.log";
/// Lines of past entries that the file may have at least.
const SPARE_LINES: usize = 10_000;

/// The file, open for more entries.
#[derive(Debug)]
pub struct SessionFile {
    path: PathBuf,
    file: File,
    /// Bytes that are known to be whole lines.
    bytes: u64,
    lines: usize,
}

impl SessionFile {
    /// Opens the file in `folder`, which is made if it isn't there; each entry goes to `take`. A last line without an end is what
    /// a crash has left of an entry that nobody was told is stored: it is dropped.
    ///
    /// # Errors
    /// The folder can't be made, or the file is there and isn't what was written.
    pub fn open(folder: &Path, mut take: impl FnMut(Record)) -> io::Result<Self> {
        let path = folder.join(NAME);
        let explain = |error: io::Error| {
            let text = format!("blacklisted sessions can't be kept in {} (STATE_DIR): {error}", path.display());
            io::Error::new(error.kind(), text)
        };
        fs::create_dir_all(folder).map_err(explain)?;
        let text = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(explain(error)),
        };
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let mut lines = 0;
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            lines += 1;
            let record = std::str::from_utf8(line).map_err(|error| error.to_string());
            let record = record.and_then(|line| Record::from_line(line).map_err(|error| error.to_string()));
            take(record.map_err(|error| {
                let wrong = format!("line {lines} is not what was written ({error}); move the file away");
                explain(io::Error::new(io::ErrorKind::InvalidData, wrong))
            })?);
        }
        if whole < text.len() {
            tracing::warn!(path = %path.display(), "the end of an entry that was being written at a crash was dropped");
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(explain)?;
        file.set_len(whole as u64).map_err(explain)?;
        sync_folder(folder).map_err(explain)?;
        Ok(Self { path, file, bytes: whole as u64, lines })
    }

    /// Adds an entry, durably.
    ///
    /// # Errors
    /// The disk is full, or the file can't be written to; the file is as before then.
    pub fn append(&mut self, record: Record) -> io::Result<()> {
        let line = record.to_line() + "\n";
        // What an earlier failure has left, if it could not be taken back then.
        self.file.set_len(self.bytes)?;
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            if let Err(kept) = self.file.set_len(self.bytes) {
                tracing::warn!(path = %self.path.display(), error = %kept, "half an entry could not be taken back yet");
            }
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.lines += 1;
        Ok(())
    }

    /// Do lines of past entries outweigh the `live` ones?
    #[must_use]
    pub fn is_stale(&self, live: usize) -> bool {
        self.lines > 2 * live + SPARE_LINES
    }

    /// Writes the file anew with these entries: beside the old one, made durable, then renamed.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn rewrite(&mut self, records: impl Iterator<Item = Record>) -> io::Result<()> {
        let beside = self.path.with_extension("log.new");
        let mut out = BufWriter::new(File::create(&beside)?);
        let (mut bytes, mut lines) = (0, 0);
        for record in records {
            let line = record.to_line() + "\n";
            out.write_all(line.as_bytes())?;
            bytes += line.len() as u64;
            lines += 1;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        let file = OpenOptions::new().append(true).open(&beside)?;
        fs::rename(&beside, &self.path)?;
        (self.file, self.bytes, self.lines) = (file, bytes, lines);
        self.path.parent().map_or(Ok(()), sync_folder)
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use tidegate_shards::sessions::Fingerprint;

    use super::*;

    fn record(number: usize) -> Record {
        Record { session: Fingerprint::of(&number.to_string()), until_unix_ms: number as u64 }
    }

    fn open(folder: &Path) -> io::Result<(SessionFile, Vec<Record>)> {
        let mut records = Vec::new();
        SessionFile::open(folder, |record| records.push(record)).map(|file| (file, records))
    }

    #[test]
    fn what_was_written_is_there_when_the_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        let (mut file, none) = open(&below).unwrap();
        assert!(none.is_empty());
        (0..3).for_each(|number| file.append(record(number)).unwrap());
        drop(file);
        let (mut file, records) = open(&below).unwrap();
        assert_eq!(records, [record(0), record(1), record(2)]);
        file.rewrite([record(1)].into_iter()).unwrap();
        file.append(record(7)).unwrap();
        assert_eq!(open(&below).unwrap().1, [record(1), record(7)]);
        assert_eq!(fs::read_dir(&below).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn an_entry_that_a_crash_has_cut_at_any_byte_is_dropped_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, _) = open(folder.path()).unwrap();
        (0..2).for_each(|number| file.append(record(number)).unwrap());
        let whole = fs::read(folder.path().join(NAME)).unwrap();
        let first = whole.len() / 2;
        for end in first..whole.len() {
            fs::write(folder.path().join(NAME), &whole[..end]).unwrap();
            let (mut file, records) = open(folder.path()).unwrap();
            assert_eq!(records, [record(0)], "cut at {end}");
            file.append(record(2)).unwrap();
            assert_eq!(open(folder.path()).unwrap().1, [record(0), record(2)]);
        }
    }

    #[test]
    fn a_file_that_is_something_else_is_left_alone_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        fs::write(&path, "[]\n{").unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(NAME) && error.contains("STATE_DIR") && error.contains("line 1"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "[]\n{");
    }

    #[test]
    fn a_rewrite_that_fails_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, _) = open(folder.path()).unwrap();
        file.append(record(0)).unwrap();
        fs::create_dir(folder.path().join("sessions.log.new")).unwrap();
        file.rewrite(std::iter::empty()).unwrap_err();
        file.append(record(1)).unwrap();
        assert_eq!(open(folder.path()).unwrap().1, [record(0), record(1)]);
    }

    #[test]
    fn a_full_disk_is_told_and_leaves_whole_lines() {
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (mut file, _) = open(folder.path()).unwrap();
        file.append(record(0)).unwrap();
        let real = std::mem::replace(&mut file.file, full);
        file.append(record(1)).unwrap_err();
        file.file = real;
        file.append(record(2)).unwrap();
        assert_eq!(open(folder.path()).unwrap().1, [record(0), record(2)]);
    }
}
