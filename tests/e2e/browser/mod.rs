//! What people see: the real binary and a real browser.

mod buying;
mod chromium;
mod devices;
mod process;
mod shop;
