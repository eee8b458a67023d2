use proptest::prelude::*;

use super::*;

#[derive(Debug, PartialEq, Eq)]
struct Caller {
    number: u32,
    gone: bool,
}

impl Waiter for Caller {
    fn is_gone(&self) -> bool {
        self.gone
    }
}

const LIFE_MS: u64 = 1_000;

fn caller(number: u32) -> Caller {
    Caller { number, gone: false }
}

fn stored(max_bytes: usize) -> Stored<Caller> {
    Stored::new(max_bytes, LIFE_MS, 0)
}

fn id(slot: u32) -> CorrelationId {
    CorrelationId { instance: 1, slot, generation: 0 }
}

fn answer(body: &str) -> CorrelatedAnswer {
    let body = Bytes::copy_from_slice(body.as_bytes());
    CorrelatedAnswer { status: StatusCode::OK, headers: HeaderMap::new(), body }
}

fn body(stored: &mut Stored<Caller>, slot: u32) -> Option<Bytes> {
    match stored.look(id(slot), true, caller(0)) {
        Look::Done(answer, _) => Some(answer.body),
        _ => None,
    }
}

#[test]
fn whoever_waits_gets_the_answer_and_whoever_comes_later_finds_it() {
    let mut stored = stored(10_000);
    stored.open(id(1), 0).unwrap();
    assert!(matches!(stored.look(id(1), true, caller(7)), Look::Waiting));
    assert_eq!(stored.settle(id(1), &answer("a"), true, 0), [caller(7)]);
    assert_eq!(body(&mut stored, 1).unwrap(), "a");
    assert!(stored.settle(id(1), &answer("b"), true, 0).is_empty(), "a second answer changes nothing");
    assert_eq!(body(&mut stored, 1).unwrap(), "a");
}

#[test]
fn a_failure_reaches_those_who_wait_and_is_forgotten() {
    let mut stored = stored(10_000);
    stored.open(id(1), 0).unwrap();
    stored.look(id(1), true, caller(7));
    assert_eq!(stored.settle(id(1), &answer("failed"), false, 0).len(), 1);
    assert!(matches!(stored.look(id(1), true, caller(8)), Look::Unknown(_)));
    assert_eq!(stored.bytes(), 0);
}

#[test]
fn an_answer_is_kept_for_its_life_and_no_longer() {
    let mut stored = stored(10_000);
    stored.open(id(1), 0).unwrap();
    stored.settle(id(1), &answer("a"), true, 500);
    stored.tick(1_450);
    assert!(body(&mut stored, 1).is_some());
    stored.tick(1_500);
    assert!(body(&mut stored, 1).is_none());
    assert_eq!(stored.bytes(), 0);
}

#[test]
fn the_first_claim_wins_until_it_is_released() {
    let mut stored = stored(10_000);
    assert_eq!(stored.claim([1; 32], [9; 32], id(1), 0), Ok(Claimed::First));
    assert_eq!(stored.claim([1; 32], [9; 32], id(2), 0), Ok(Claimed::Before(id(1))));
    assert_eq!(stored.claim([1; 32], [8; 32], id(2), 0), Ok(Claimed::Different));
    stored.release(&[1; 32], id(2));
    assert_eq!(stored.claim([1; 32], [9; 32], id(2), 0), Ok(Claimed::Before(id(1))), "only its holder releases it");
    stored.release(&[1; 32], id(1));
    assert_eq!(stored.claim([1; 32], [9; 32], id(2), 0), Ok(Claimed::First));
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let mut stored = stored(4 * (ENTRY_BYTES + 1));
    for slot in 0..3 {
        stored.open(id(slot), 0).unwrap();
        stored.settle(id(slot), &answer("x"), true, 0);
    }
    assert!(body(&mut stored, 0).is_some(), "0 has been used after 1 now");
    stored.open(id(3), 0).unwrap();
    stored.open(id(4), 0).unwrap();
    assert!(body(&mut stored, 1).is_none());
    assert!(body(&mut stored, 0).is_some() && body(&mut stored, 2).is_some());
}

#[test]
fn answers_that_are_waited_for_are_never_pushed_out() {
    let mut stored = stored(2 * ENTRY_BYTES);
    stored.open(id(0), 0).unwrap();
    stored.open(id(1), 0).unwrap();
    assert_eq!(stored.open(id(2), 0), Err(NoRoom));
    assert_eq!(stored.claim([1; 32], [9; 32], id(2), 0), Err(NoRoom));
    assert!(matches!(stored.look(id(0), true, caller(1)), Look::Waiting));
}

#[test]
fn an_answer_that_fits_nowhere_is_replaced_by_one_that_says_so() {
    let mut stored = stored(1_000);
    stored.open(id(0), 0).unwrap();
    stored.settle(id(0), &answer(&"x".repeat(2_000)), true, 0);
    assert!(String::from_utf8_lossy(&body(&mut stored, 0).unwrap()).contains("PROXY_STORED_BYTES"));
}

#[test]
fn callers_that_have_gone_make_room_for_others() {
    let mut stored = stored(10_000);
    stored.open(id(0), 0).unwrap();
    for number in 0..MAX_WAITERS as u32 {
        assert!(matches!(stored.look(id(0), true, Caller { number, gone: number > 0 }), Look::Waiting));
    }
    assert!(matches!(stored.look(id(0), true, caller(9)), Look::Waiting));
    assert_eq!(stored.settle(id(0), &answer("a"), true, 0), [caller(0), caller(9)]);
}

proptest! {
    #[test]
    fn the_bound_holds_and_the_reckoning_is_exact(
        steps in proptest::collection::vec((0u8..5, 0u32..8, 0usize..400), 0..200),
    ) {
        let mut stored = stored(2_000);
        let mut now_ms = 0;
        for (kind, slot, len) in steps {
            match kind {
                0 => { let _ = stored.open(CorrelationId { generation: u32::try_from(len).unwrap(), ..id(slot) }, now_ms); }
                1 => { stored.settle(id(slot), &answer(&"x".repeat(len)), true, now_ms); }
                2 => { let _ = stored.claim([u8::try_from(slot).unwrap(); 32], [0; 32], id(slot), now_ms); }
                3 => { stored.look(id(slot), true, caller(slot)); }
                _ => { now_ms += len as u64; stored.tick(now_ms); }
            }
            prop_assert!(stored.bytes() <= 2_000);
            prop_assert_eq!(stored.bytes(), stored.entries.values().map(|entry| entry.bytes).sum::<usize>());
            prop_assert_eq!(stored.entries.len(), stored.answers.len() + stored.claims.len());
        }
        stored.tick(now_ms + 3 * LIFE_MS);
        prop_assert_eq!((stored.bytes(), stored.entries.len(), stored.uses.len()), (0, 0, 0));
    }
}
