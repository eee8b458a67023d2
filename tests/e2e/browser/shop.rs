//! The ticket shop's page in Chromium.

use serde_json::json;

use super::chromium::{Chromium, Page, installed};
use super::process::{Demo, EXTRACTORS, Shop, ShopProcess, restart};
use crate::support::gateway::Gateway;

/// Opens the page and waits until its subscription is in force.
pub(super) fn visit(browser: &mut Chromium, shop: Shop, transport: &str) -> Page {
    let mut page = browser.open(&shop.page(transport));
    wait_until_live(&mut page);
    page
}

pub(super) fn wait_until_live(page: &mut Page) {
    page.wait_for("document.querySelector('#link').dataset.state === 'live'");
}

/// An expression: how the page shows the seat, `free`, `pending`, `sold` or `mine`.
pub(super) fn state(seat: &str) -> String {
    format!("document.querySelector('[data-seat={seat}]')?.dataset.state")
}

pub(super) fn wait_for_state(page: &mut Page, seat: &str, wanted: &str) {
    page.wait_for(&format!("{} === '{wanted}'", state(seat)));
}

pub(super) fn click(page: &mut Page, seat: &str) {
    page.evaluate(&format!("document.querySelector('[data-seat={seat}]').click()"));
}

pub(super) fn text(page: &mut Page, id: &str) -> String {
    page.evaluate(&format!("document.getElementById('{id}').textContent")).as_str().unwrap_or_default().to_owned()
}

/// The page never asks the shop again for what an event has told it: the seat disappears by the event alone.
fn a_purchase_shows_up_live(transport: &str) {
    let Some(chromium) = installed() else { return };
    let demo = Demo::start(0);
    let mut browser = Chromium::start(&chromium);
    let mut page = visit(&mut browser, demo.shop, transport);
    page.evaluate("performance.clearResourceTimings()");
    assert_eq!(page.evaluate(&state("C3")), json!("free"));

    demo.shop.sell("C3", "Mia");

    wait_for_state(&mut page, "C3", "sold");
    page.wait_for("document.querySelector('#feed').textContent.includes('Row C seat 3 sold to Mia')");
    page.wait_for("document.querySelector('#free').textContent === '299'");
    page.wait_for("document.querySelector('#viewers').textContent === '1'");
    page.wait_for("Number(document.querySelector('#rate').textContent) > 0");
    page.wait_for("document.querySelector('#latency').textContent !== '–'");
    let calls = page.evaluate(
        "performance.getEntriesByType('resource').filter((entry) => entry.name.includes('/api/hall')).length",
    );
    assert_eq!(calls, json!(0), "the page learned of the purchase from the gateway, not from the shop");
}

#[test]
fn the_shop_page_updates_live_over_event_source() {
    a_purchase_shows_up_live("sse");
}

#[test]
fn the_shop_page_updates_live_over_web_socket() {
    a_purchase_shows_up_live("ws");
}

#[test]
fn a_seat_can_be_bought_with_the_keyboard_and_stays_the_viewers_own_after_a_reload() {
    let Some(chromium) = installed() else { return };
    let demo = Demo::start(0);
    let mut browser = Chromium::start(&chromium);
    let mut page = visit(&mut browser, demo.shop, "sse");

    page.evaluate("document.querySelector('.seat[tabindex=\"0\"]').focus()");
    for key in ["ArrowRight", "ArrowRight", "ArrowDown"] {
        page.evaluate(&format!(
            "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }}))"
        ));
    }
    assert_eq!(page.evaluate("document.activeElement.dataset.seat"), json!("B3"));
    assert_eq!(page.evaluate("document.activeElement.ariaLabel"), json!("Row B seat 3, 95 euros, free"));
    page.press_enter();
    wait_for_state(&mut page, "B3", "mine");

    page.evaluate("location.reload()");
    wait_for_state(&mut page, "B3", "mine");
    wait_until_live(&mut page);
}

/// What was sold while the page had no connection is on it afterwards, and the page is live again. The shop's services had
/// lost their connections too, and the gateway has forgotten them.
fn the_page_recovers_from_a_restart(transport: &str) {
    let Some(chromium) = installed() else { return };
    let gateway = Gateway::with(&[EXTRACTORS]);
    let process = ShopProcess::beside(&gateway, &[]);
    let shop = process.shop;
    let mut browser = Chromium::start(&chromium);
    let mut page = visit(&mut browser, shop, transport);
    shop.sell("A1", "Ada");
    wait_for_state(&mut page, "A1", "sold");

    let _gateway = restart(gateway, || {
        page.wait_for("document.querySelector('#link').dataset.state === 'reconnecting'");
        click(&mut page, "A2");
        page.wait_for("document.querySelector('#toast').textContent.startsWith('The gateway did not answer.')");
        wait_for_state(&mut page, "A2", "free");
    });
    shop.sell("A2", "Ben");

    wait_until_live(&mut page);
    wait_for_state(&mut page, "A2", "sold");
    shop.sell("A3", "Chloe");
    wait_for_state(&mut page, "A3", "sold");
    click(&mut page, "A4");
    wait_for_state(&mut page, "A4", "mine");
}

#[test]
fn the_shop_page_reconnects_after_a_restart_of_the_gateway_over_event_source() {
    the_page_recovers_from_a_restart("sse");
}

#[test]
fn the_shop_page_reconnects_after_a_restart_of_the_gateway_over_web_socket() {
    the_page_recovers_from_a_restart("ws");
}

#[test]
fn simulated_buyers_fill_the_hall_while_a_phone_looks_on() {
    let Some(chromium) = installed() else { return };
    let demo = Demo::start(20);
    let mut browser = Chromium::start(&chromium);
    let mut page = browser.open("about:blank");
    page.emulate(375, 812, true);
    page.navigate(&demo.shop.page("sse"));
    wait_until_live(&mut page);
    page.wait_for("document.querySelectorAll('#feed li.sold').length >= 3");
    assert_eq!(page.evaluate("document.documentElement.scrollWidth"), json!(375), "nothing sticks out to the side");
    assert!(page.screenshot().starts_with(b"\x89PNG"), "the page can be painted");
}
