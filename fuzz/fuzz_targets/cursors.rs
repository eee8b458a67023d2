//! Cursors as clients present them. What is read must be written again as the same positions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_shards::cursor::{
    Checkpoint, CheckpointedCursor, Cursor, CursorWriter, Positions, ResumeFrom, resolve,
};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = ResumeFrom::parse(text);
    let Some(cursor) = Cursor::parse(text).ok().or_else(|| checkpointed(text)) else { return };
    let mut positions = Positions::default();
    positions.name_source(0, "events", 7);
    positions.start(0, 0, 0, 5);
    let resolved = resolve(&cursor, positions.layout(), positions.next(), false);
    assert_eq!(resolved.next.len(), 1);
    positions.start(0, 0, 0, resolved.next[0]);
    let written = CursorWriter::default().write(positions.layout(), positions.next()).to_owned();
    let again = Cursor::parse(&written).expect("what was written is read");
    assert_eq!(resolve(&again, positions.layout(), &[9], false).next, resolved.next);
    // The same as what has changed since a checkpoint.
    let checkpoint = known();
    let mut writer = CursorWriter::default();
    let text = writer.write_from(positions.layout(), positions.next(), &checkpoint, None).to_owned();
    let again = CheckpointedCursor::parse(&text).expect("what was written is read");
    let again = again.resolve(|_| Some(&checkpoint)).expect("it was written from this checkpoint");
    assert_eq!(resolve(&again, positions.layout(), &[9], false).next, resolved.next);
});

/// The checkpoint that every reference finds.
fn known() -> Checkpoint {
    let mut positions = Positions::default();
    positions.name_source(0, "events", 7);
    for (slot, next) in [3, 1 << 40, 0].into_iter().enumerate() {
        positions.start(slot as u32, 0, slot as u32, next);
    }
    let record = CursorWriter::default().write_bytes(positions.layout(), positions.next()).to_vec();
    Checkpoint::read(0, &record).expect("what was written is read")
}

fn checkpointed(text: &str) -> Option<Cursor> {
    let checkpoint = known();
    CheckpointedCursor::parse(text).ok()?.resolve(|_| Some(&checkpoint))
}
