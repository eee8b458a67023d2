//! What people see: the real binary and a real browser.

mod chromium;
mod process;
mod shop;
