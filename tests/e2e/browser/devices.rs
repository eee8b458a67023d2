//! One person on two devices, and a gateway whose plug is pulled while seats are sold.

use serde_json::json;

use super::chromium::{Chromium, Page, installed};
use super::process::{Demo, EXTRACTORS, Shop, ShopProcess, restart_with};
use super::shop::{click, state, text, visit, wait_for_state, wait_until_live};
use crate::support::gateway::Gateway;
use crate::support::kafka::own_broker;

/// Opens the page on another device, as it were, and signs in.
fn sign_in(browser: &mut Chromium, shop: Shop, transport: &str, name: &str) -> Page {
    let mut page = visit(browser, shop, transport);
    submit(&mut page, name, "4711");
    page.wait_for(&format!("document.querySelector('#who').textContent === {}", json!(name)));
    wait_until_live(&mut page);
    page
}

fn submit(page: &mut Page, name: &str, pin: &str) {
    page.evaluate(&format!(
        "(() => {{
            const form = document.querySelector('#sign-in');
            form.elements.name.value = {};
            form.elements.pin.value = {};
            form.requestSubmit();
            return true;
        }})()",
        json!(name),
        json!(pin)
    ));
}

/// Each window has a session storage of its own, as another device has.
#[test]
fn who_signs_in_on_two_devices_and_buys_on_one_sees_seat_and_mail_on_the_other() {
    let Some(chromium) = installed() else { return };
    let demo = Demo::start(0);
    let mut browser = Chromium::start(&chromium);
    let mut laptop = sign_in(&mut browser, demo.shop, "sse", "Mia");
    let mut phone = sign_in(&mut browser, demo.shop, "ws", "Mia");
    let mut stranger = visit(&mut browser, demo.shop, "sse");

    click(&mut laptop, "C3");
    wait_for_state(&mut laptop, "C3", "mine");
    wait_for_state(&mut phone, "C3", "mine");
    phone.wait_for("document.querySelector('#mails b')?.textContent === 'Your ticket for seat C3'");
    wait_for_state(&mut stranger, "C3", "sold");

    click(&mut phone, "C4");
    wait_for_state(&mut laptop, "C4", "mine");
    laptop.wait_for("document.querySelector('#mails b')?.textContent === 'Your ticket for seat C4'");
    wait_for_state(&mut stranger, "C4", "sold");
    assert_eq!(stranger.evaluate("document.querySelectorAll('#mails li').length"), json!(0));

    submit(&mut stranger, "Mia", "not hers");
    stranger.wait_for("document.querySelector('#account-note').textContent.includes('with another PIN')");
    assert_ne!(text(&mut stranger, "who"), "Mia");
}

/// The gateway of the page dies, seats are sold through another one, and the page goes on behind the last event that it got:
/// it never asks the shop again.
fn the_plug_is_pulled_during_a_sale(transport: &str) {
    let Some(chromium) = installed() else { return };
    let Some(kafka) = own_broker("the page goes on where it was", None) else { return };
    let settings = [("KAFKA_BROKERS", kafka.brokers()), EXTRACTORS];
    let (gateway, other) = (Gateway::with(&settings), Gateway::with(&settings));
    let process = ShopProcess::beside(&gateway, &settings[..1]);
    let elsewhere = process.shop.through(&other);
    let mut browser = Chromium::start(&chromium);
    let mut page = visit(&mut browser, process.shop, transport);
    elsewhere.sell("A1", "Ada");
    wait_for_state(&mut page, "A1", "sold");
    page.evaluate("performance.clearResourceTimings()");

    let _gateway = restart_with(gateway, &settings, || {
        page.wait_for("document.querySelector('#link').dataset.state === 'reconnecting'");
        for seat in ["A2", "A3", "A4"] {
            elsewhere.sell(seat, &format!("buyer of {seat}"));
        }
        assert_eq!(page.evaluate(&state("A2")), json!("free"), "the page can't know yet");
    });

    for seat in ["A2", "A3", "A4"] {
        wait_for_state(&mut page, seat, "sold");
    }
    wait_until_live(&mut page);
    elsewhere.sell("A5", "Eve");
    wait_for_state(&mut page, "A5", "sold");
    let asked = "performance.getEntriesByType('resource').filter((entry) => entry.name.includes('/api/hall')).length";
    assert_eq!(page.evaluate(asked), json!(0), "what it had missed came from the gateway");
}

#[test]
fn a_gateway_that_dies_during_a_sale_leaves_no_gap_on_the_page_over_event_source() {
    the_plug_is_pulled_during_a_sale("sse");
}

#[test]
fn a_gateway_that_dies_during_a_sale_leaves_no_gap_on_the_page_over_web_socket() {
    the_plug_is_pulled_during_a_sale("ws");
}
