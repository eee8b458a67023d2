//! The tickets service, event by event.

use super::*;
use crate::demo::event::{Event, Request};

fn purchase(order: &str, seat: &str, name: &str) -> Delivery {
    let request = Request { correlation: format!("call of {order}"), path: format!("/tickets/seats/{seat}/buy") };
    let data = json!({ "buyer": format!("id of {name}"), "name": name });
    let event = Event { id: order.into(), event_type: PURCHASE_REQUESTED.into(), data, request: Some(request) };
    Delivery { event, reply: None }
}

fn delivery(event_type: &str, data: Value) -> Delivery {
    let event = Event { id: "any".into(), event_type: event_type.into(), data, request: None };
    Delivery { event, reply: None }
}

fn accepted(order: &str) -> Delivery {
    delivery(PAYMENT_ACCEPTED, json!({ "order": order, "left": 305 }))
}

fn refused(order: &str) -> Delivery {
    delivery(PAYMENT_REFUSED, json!({ "order": order, "reason": "Ben has €12 left." }))
}

/// What each output is, in short.
fn kinds(outputs: &[Output]) -> Vec<String> {
    let kind = |output: &Output| match output {
        Output::Publish(draft) | Output::Figures(draft) => draft.event_type.to_owned(),
        Output::Answer { to, status, .. } => format!("{} to {}", status.as_u16(), to.correlation),
    };
    outputs.iter().map(kind).collect()
}

fn answer(outputs: &[Output]) -> (u16, Value) {
    let answers = outputs.iter().filter_map(|output| match output {
        Output::Answer { status, body, .. } => Some((status.as_u16(), body.clone())),
        _ => None,
    });
    answers.into_iter().next_back().unwrap_or_else(|| panic!("no answer among {outputs:?}"))
}

fn published<'a>(outputs: &'a [Output], event_type: &str) -> &'a Value {
    let data = outputs.iter().find_map(|output| match output {
        Output::Publish(draft) | Output::Figures(draft) if draft.event_type == event_type => Some(&draft.data),
        _ => None,
    });
    data.unwrap_or_else(|| panic!("no {event_type} among {outputs:?}"))
}

#[test]
fn a_seat_is_held_until_it_is_paid_and_then_sold_answered_and_confirmed() {
    let now = Instant::now();
    let (mut tickets, board) = Tickets::open(7);
    let reserved = tickets.handle(&purchase("1", "C13", " Mia "), now);
    let data = json!({"order": "1", "seat": "C13", "price": 95, "buyer": "id of  Mia", "name": "Mia"});
    assert_eq!(published(&reserved, SEAT_RESERVED), &data);
    assert_eq!(kinds(&reserved), [SEAT_RESERVED], "nobody is told before the payment is decided");

    let sold = tickets.handle(&accepted("1"), now);
    assert_eq!(kinds(&sold), [SEAT_SOLD, "200 to call of 1", ORDER_CONFIRMED]);
    let public =
        json!({"seat": "C13", "row": "C", "number": 13, "price": 95, "buyer": "Mia", "sequence": 1, "opening": 7});
    assert_eq!(published(&sold, SEAT_SOLD), &public, "the buyer's id is nobody else's business");
    assert_eq!(answer(&sold), (200, json!({"seat": "C13", "price": 95, "sequence": 1, "left": 305})));
    assert_eq!(published(&sold, ORDER_CONFIRMED)["buyer"], "id of  Mia");
    assert_eq!(serde_json::to_value(&*board.borrow()).expect("JSON")["sold"], json!([{"seat": "C13", "buyer": "Mia"}]));
}

#[test]
fn of_two_who_race_for_a_seat_the_second_is_told_who_has_it_or_is_paying_for_it() {
    let now = Instant::now();
    let (mut tickets, _board) = Tickets::open(7);
    tickets.handle(&purchase("1", "K8", "Mia"), now);
    let early = tickets.handle(&purchase("2", "K8", "Ben"), now);
    let error = "Too late: row K seat 8 is just being paid for by Mia.";
    assert_eq!(answer(&early), (409, json!({"error": error, "name": "Mia", "sold": false})));
    tickets.handle(&accepted("1"), now);
    let late = tickets.handle(&purchase("3", "K8", "Ben"), now);
    let error = "Too late: row K seat 8 went to Mia.";
    assert_eq!(answer(&late), (409, json!({"error": error, "name": "Mia", "sold": true})));
    assert_eq!(kinds(&late), ["409 to call of 3"]);
}

#[test]
fn a_seat_whose_payment_is_refused_goes_to_the_next_who_asks() {
    let now = Instant::now();
    let (mut tickets, _board) = Tickets::open(7);
    tickets.handle(&purchase("1", "K8", "Ben"), now);
    let outputs = tickets.handle(&refused("1"), now);
    assert_eq!(kinds(&outputs), [SEAT_RELEASED, "402 to call of 1"]);
    let public = json!({"order": "1", "seat": "K8", "row": "K", "number": 8, "buyer": "Ben"});
    assert_eq!(published(&outputs, SEAT_RELEASED), &public);
    assert_eq!(answer(&outputs), (402, json!({"error": "Ben has €12 left."})));
    tickets.handle(&purchase("2", "K8", "Mia"), now);
    assert_eq!(answer(&tickets.handle(&accepted("2"), now)).0, 200);
}

#[test]
fn a_payment_service_that_is_silent_costs_the_buyer_the_seat_and_never_the_money() {
    let now = Instant::now();
    let (mut tickets, _board) = Tickets::open(7);
    tickets.tick(now);
    tickets.handle(&purchase("1", "K8", "Mia"), now);
    let just_before = tickets.tick(now + HOLD - Duration::from_millis(1));
    assert_eq!(kinds(&just_before), [STATS], "the seat is still held");
    let outputs = tickets.tick(now + HOLD);
    assert_eq!(kinds(&outputs), [SEAT_RELEASED, "503 to call of 1"]);
    let late = tickets.handle(&accepted("1"), now + HOLD);
    assert_eq!(kinds(&late), [SEAT_RELEASED], "who charged the buyer hears that the money has to go back");
    assert_eq!(published(&late, SEAT_RELEASED), &json!({"order": "1", "buyer": ""}));
    assert_eq!(kinds(&tickets.handle(&purchase("2", "K8", "Ben"), now + HOLD)), [SEAT_RESERVED]);
}

#[test]
fn an_event_that_comes_twice_counts_once() {
    let now = Instant::now();
    let (mut tickets, _board) = Tickets::open(7);
    tickets.handle(&purchase("1", "K8", "Mia"), now);
    assert_eq!(tickets.handle(&purchase("1", "K8", "Mia"), now), [], "while the payment is open");
    tickets.handle(&accepted("1"), now);
    for again in [purchase("1", "K8", "Mia"), accepted("1"), refused("1")] {
        assert_eq!(tickets.handle(&again, now), [], "{again:?}");
    }
}

#[test]
fn a_request_that_makes_no_sense_is_answered_with_the_reason() {
    let now = Instant::now();
    let (mut tickets, _board) = Tickets::open(7);
    for seat in ["Z1", "B99", "c3", "B%20"] {
        assert_eq!(answer(&tickets.handle(&purchase("1", seat, "Mia"), now)).0, 404, "{seat}");
    }
    for body in [
        json!(null),
        json!([]),
        json!({"buyer": "b"}),
        json!({"buyer": "b", "name": 7}),
        json!({"buyer": "b", "name": "  "}),
        json!({"buyer": "b", "name": "a\u{7}b"}),
        json!({"buyer": "b".repeat(65), "name": "Mia"}),
    ] {
        let mut delivery = purchase("1", "B6", "Mia");
        delivery.event.data = body.clone();
        let (status, answer) = answer(&tickets.handle(&delivery, now));
        assert_eq!(status, 400, "{body}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{body}");
    }
    assert_eq!(kinds(&tickets.handle(&purchase("1", "B6", "Mia"), now)), [SEAT_RESERVED], "B6 is still free");
    assert_eq!(tickets.handle(&delivery(PAYMENT_ACCEPTED, json!("odd")), now), []);
    assert_eq!(tickets.handle(&delivery(PURCHASE_REQUESTED, json!({})), now), [], "nobody waits for an answer");
}

#[test]
fn figures_come_once_a_second_with_the_viewers_that_were_counted_last() {
    let now = Instant::now();
    let (mut tickets, _board) = Tickets::open(7);
    assert_eq!(published(&tickets.tick(now), STATS), &json!({"viewers": null, "sold": 0, "seats": 300, "sequence": 0}));
    tickets.handle(&delivery(AUDIENCE_COUNTED, json!({"viewers": 7})), now);
    assert_eq!(tickets.tick(now + FIGURES / 2), []);
    let second = tickets.tick(now + FIGURES);
    assert_eq!(published(&second, STATS)["viewers"], 7);
    assert!(matches!(second[..], [Output::Figures(_)]), "old figures need not wait for a gateway that is away");
}

#[test]
fn a_sold_out_hall_reopens_after_the_curtain_and_not_before() {
    let now = Instant::now();
    let (mut tickets, board) = Tickets::open(7);
    let sell_out = |tickets: &mut Tickets, at| {
        for (number, seat) in super::super::hall::seats().enumerate() {
            let order = format!("{number}");
            tickets.handle(&purchase(&order, &seat.to_string(), "Ada"), at);
            assert_eq!(answer(&tickets.handle(&accepted(&order), at)).0, 200);
        }
    };
    sell_out(&mut tickets, now);
    assert_eq!(kinds(&tickets.tick(now)), [STATS]);
    assert_eq!(kinds(&tickets.tick(now + CURTAIN - Duration::from_millis(1))), [STATS]);
    assert_eq!(board.borrow().side_by_side(0, 1), []);
    let reset = tickets.tick(now + CURTAIN);
    let opened = published(&reset, HALL_RESET);
    assert_eq!((&opened["sequence"], &opened["opening"]), (&json!(301), &json!(8)));
    assert_eq!(board.borrow().side_by_side(0, 1).len(), 1);
    sell_out(&mut tickets, now + CURTAIN);
    let soon = tickets.tick(now + CURTAIN * 2 - Duration::from_millis(1));
    assert_eq!(kinds(&soon), [STATS], "the second show gets its own full pause");
}

#[test]
fn a_hub_that_is_reached_again_is_told_the_show_and_every_sale() {
    let now = Instant::now();
    let (mut tickets, board) = Tickets::open(7);
    assert_eq!(kinds(&tickets.introduce()), [HALL_RESET]);
    for (order, seat) in [("1", "C13"), ("2", "K8")] {
        tickets.handle(&purchase(order, seat, "Mia"), now);
        tickets.handle(&accepted(order), now);
    }
    let told = tickets.introduce();
    assert_eq!(kinds(&told), [HALL_RESET, SEAT_SOLD, SEAT_SOLD]);
    let show = board.borrow().clone();
    let opened = json!({"show": serde_json::to_value(show).expect("JSON")["show"], "sequence": 2, "opening": 7});
    assert_eq!(published(&told, HALL_RESET), &opened);
    let subjects = told.iter().filter_map(|output| match output {
        Output::Publish(draft) => Some(draft.subject.as_str()),
        _ => None,
    });
    assert_eq!(subjects.collect::<Vec<_>>(), [HALL_RESET, "C13", "K8"], "the newest event of each is kept");
}
