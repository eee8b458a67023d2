//! Buying seats in Chromium: the call through the gateway, the services behind it, and what every page shows of it.

use serde_json::{Value, json};

use super::chromium::{Chromium, Page, installed};
use super::process::{Demo, EXTRACTORS, ShopProcess};
use super::shop::{click, state, text, visit, wait_for_state};
use crate::support::clients::query;
use crate::support::gateway::Gateway;
use crate::support::kafka::own_broker;
use crate::support::sse::EventStream;

/// Subjects of the mails on the page, newest first.
fn mails(page: &mut Page) -> Value {
    page.evaluate("[...document.querySelectorAll('#mails b')].map((subject) => subject.textContent)")
}

fn wait_for_toast(page: &mut Page, start: &str) {
    page.wait_for(&format!("document.querySelector('#toast').textContent.startsWith({})", json!(start)));
}

/// One page buys, all pages see it, and the mail reaches the buyer's page alone.
fn a_seat_is_bought(browser: &mut Chromium, demo: &Demo) {
    let mut buyer = visit(browser, demo.shop, "sse");
    let mut other = visit(browser, demo.shop, "ws");
    click(&mut buyer, "C3");
    wait_for_toast(&mut buyer, "Row C seat 3 is yours.");
    wait_for_state(&mut buyer, "C3", "mine");
    wait_for_state(&mut other, "C3", "sold");
    let name = buyer.evaluate("sessionStorage.name");
    assert_eq!(demo.shop.owner("C3").as_deref(), name.as_str());
    assert_eq!(text(&mut buyer, "purse"), "€305 left");

    click(&mut other, "C4");
    wait_for_state(&mut other, "C4", "mine");
    other.wait_for("document.querySelectorAll('#mails li').length > 0");
    buyer.wait_for("document.querySelectorAll('#mails li').length > 0");
    wait_for_state(&mut buyer, "C4", "sold");
    assert_eq!(mails(&mut buyer), json!(["Your ticket for seat C3"]));
    assert_eq!(mails(&mut other), json!(["Your ticket for seat C4"]));
}

/// Who comes late is told of every sale by the gateway alone; the shop only says how the hall is built.
fn a_late_comer_draws_the_hall(browser: &mut Chromium, demo: &Demo) {
    for seat in ["T1", "T2"] {
        demo.shop.sell(seat, "Ada");
    }
    for transport in ["sse", "ws"] {
        let mut page = visit(browser, demo.shop, transport);
        for (seat, expected) in [("T1", "sold"), ("T2", "sold"), ("T3", "free")] {
            assert_eq!(page.evaluate(&state(seat)), json!(expected), "{seat} over {transport}");
        }
        assert_eq!(page.evaluate("document.querySelectorAll('#feed .sold').length"), json!(0), "that is no news");
        let asked =
            "performance.getEntriesByType('resource').filter((entry) => entry.name.includes('/api/hall')).length";
        assert_eq!(page.evaluate(asked), json!(1), "for the plan, before the subscription");
    }
}

/// Two pages ask for the same seat at once: one gets it, and the other is told who was faster.
fn two_pages_race(browser: &mut Chromium, demo: &Demo) {
    let mut pages = [visit(browser, demo.shop, "sse"), visit(browser, demo.shop, "ws")];

    // Calls are held back until both pages have been clicked: neither can know of the other's outcome.
    for page in &mut pages {
        page.evaluate(
            "window.held = new Promise((go) => { window.release = go; });
             window.asked = fetch;
             window.fetch = (...call) => held.then(() => asked(...call));
             document.querySelector('[data-seat=K8]').click();
             true",
        );
        wait_for_state(page, "K8", "pending");
    }
    for page in &mut pages {
        page.evaluate("release(); true");
    }

    let outcomes = pages.each_mut().map(|page| {
        page.wait_for("!document.querySelector('#toast').hidden");
        page.wait_for(&format!("['mine', 'sold'].includes({})", state("K8")));
        let outcome = page.evaluate(&state("K8")).as_str().unwrap_or_default().to_owned();
        (outcome, text(page, "toast"), page.evaluate("sessionStorage.name"))
    });
    let (winners, losers): (Vec<_>, Vec<_>) = outcomes.iter().partition(|(outcome, ..)| outcome == "mine");
    let ([(_, won, winner)], [(_, lost, _)]) = (&winners[..], &losers[..]) else { panic!("one winner: {outcomes:?}") };
    let winner = winner.as_str().expect("the page has a buyer");
    assert_eq!(won, "Row K seat 8 is yours.");
    let refusals =
        ["went to", "is just being paid for by"].map(|what| format!("Too late: row K seat 8 {what} {winner}."));
    assert!(refusals.contains(lost), "a clear refusal: {lost}");
    assert_eq!(demo.shop.owner("K8").as_deref(), Some(winner));
}

#[test]
fn a_seat_is_bought_on_the_local_hub_and_the_mail_reaches_the_buyers_page_only() {
    let Some(chromium) = installed() else { return };
    let demo = Demo::start(0);
    a_seat_is_bought(&mut Chromium::start(&chromium), &demo);
}

#[test]
fn a_page_that_comes_late_draws_the_hall_from_the_newest_event_of_each_seat() {
    let Some(chromium) = installed() else { return };
    let demo = Demo::start(0);
    a_late_comer_draws_the_hall(&mut Chromium::start(&chromium), &demo);
}

#[test]
fn of_two_pages_that_click_the_same_seat_one_gets_it_and_the_other_is_told_who_was_faster() {
    let Some(chromium) = installed() else { return };
    let demo = Demo::start(0);
    two_pages_race(&mut Chromium::start(&chromium), &demo);
}

#[test]
fn on_kafka_seats_are_bought_and_fought_over_in_the_same_way() {
    let Some(chromium) = installed() else { return };
    let Some(kafka) = own_broker("seats are bought on Kafka", None) else { return };
    let demo = Demo::with(0, &[("KAFKA_BROKERS", kafka.brokers())]);
    let mut browser = Chromium::start(&chromium);
    a_seat_is_bought(&mut browser, &demo);
    two_pages_race(&mut browser, &demo);
    a_late_comer_draws_the_hall(&mut browser, &demo);
}

#[test]
fn on_kafka_a_shop_that_is_away_and_a_broker_that_is_away_are_told_apart_on_the_page() {
    let Some(chromium) = installed() else { return };
    let Some(mut kafka) = own_broker("the page says what is wrong", None) else { return };
    let brokers = kafka.brokers().to_owned();
    let settings = [("KAFKA_BROKERS", brokers.as_str()), ("PROXY_KAFKA_RESPONSE_TIMEOUT", "8000"), EXTRACTORS];
    let gateway = Gateway::with(&settings);
    let process = ShopProcess::beside(&gateway, &settings[..1]);
    let mut browser = Chromium::start(&chromium);
    let mut page = visit(&mut browser, process.shop, "sse");
    click(&mut page, "A1");
    wait_for_state(&mut page, "A1", "mine");

    drop(process);
    click(&mut page, "A2");
    wait_for_toast(&mut page, "No answer in time (504).");
    wait_for_state(&mut page, "A2", "free");

    kafka.kill().expect("the broker can be killed");
    click(&mut page, "A3");
    wait_for_toast(&mut page, "The shop can't take orders just now (503).");
    wait_for_state(&mut page, "A3", "free");
}

#[test]
fn who_has_spent_everything_is_told_so_and_everybody_sees_that_the_seat_is_free_again() {
    let Some(chromium) = installed() else { return };
    let demo = Demo::start(0);
    let mut browser = Chromium::start(&chromium);
    let mut buyer = visit(&mut browser, demo.shop, "sse");
    let mut other = visit(&mut browser, demo.shop, "ws");
    for seat in ["A1", "A2", "A3", "A4"] {
        click(&mut buyer, seat);
        wait_for_state(&mut buyer, seat, "mine");
    }
    click(&mut buyer, "A5");
    wait_for_toast(&mut buyer, "The payment was refused: ");
    wait_for_state(&mut buyer, "A5", "free");
    other.wait_for("document.querySelector('#feed .released')?.textContent.includes('Row A seat 5 is free again')");
    assert_eq!(demo.shop.owner("A5"), None);
    click(&mut other, "A5");
    wait_for_state(&mut other, "A5", "mine");
}

#[test]
fn a_subscription_with_a_buyers_id_gets_that_buyers_mail_and_no_other() {
    let demo = Demo::start(0);
    let constrained = json!([{"eventType": "com.tidegate.tickets.mail.sent", "oneOf": [{"buyer": "id-of-Ben"}]}]);
    let mut stream = EventStream::open(&demo.gateway, &query(&constrained));
    while stream.next_event().name != "rig.subscriptions_set" {}
    demo.shop.sell("A1", "Mia");
    demo.shop.sell("A2", "Ben");
    let mail: Value = serde_json::from_str(&stream.next_event().data).expect("JSON");
    assert_eq!((&mail["data"]["buyer"], &mail["data"]["seat"]), (&json!("id-of-Ben"), &json!("A2")));
}

#[test]
fn the_calls_of_the_readme_are_answered_as_it_says() {
    let demo = Demo::start(0);
    let bought = demo.shop.buy("C13", "Mia");
    assert_eq!(bought.status, 200, "{bought:?}");
    assert_eq!(bought.json(), json!({"seat": "C13", "price": 95, "sequence": 1, "left": 305}));
    assert_eq!(bought.header("content-type"), Some("application/json"));
    let refused = demo.shop.buy("C13", "Ben");
    assert_eq!(refused.status, 409);
    assert_eq!(refused.json()["error"], "Too late: row C seat 13 went to Mia.");
    assert_eq!(demo.shop.buy("Z9", "Ben").status, 404);
    assert_eq!(demo.shop.owner("C13").as_deref(), Some("Mia"));
}
