//! Cursors as clients present them. What is read must be written again as the same positions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_shards::cursor::{Cursor, CursorWriter, Positions, ResumeFrom, resolve};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = ResumeFrom::parse(text);
    let Ok(cursor) = Cursor::parse(text) else { return };
    let mut positions = Positions::default();
    positions.name_source(0, "events", 7);
    positions.start(0, 0, 0, 5);
    let resolved = resolve(&cursor, positions.layout(), positions.next(), false);
    assert_eq!(resolved.next.len(), 1);
    positions.start(0, 0, 0, resolved.next[0]);
    let written = CursorWriter::default().write(positions.layout(), positions.next()).to_owned();
    let again = Cursor::parse(&written).expect("what was written is read");
    assert_eq!(resolve(&again, positions.layout(), &[9], false).next, resolved.next);
});
