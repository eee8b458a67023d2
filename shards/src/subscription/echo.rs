//! Writing the list in force, the way RIG re-encodes it.

use super::Subscription;
use crate::value::{Kind, NumberText, Reader, ValueError};
use std::collections::BTreeMap;

/// The list for the data of `rig.subscriptions_set`: JSON without white space, each subscription as
/// `{"eventType":…,"oneOf":[…]}`, members inside sorted by name, and numbers as RIG prints them (`1.50` as `1.5`,
/// `1e3` as `1.0e3`, integers digit by digit; a number too large for a double stays as it was given).
pub fn echo(subscriptions: &[Subscription]) -> String {
    write(subscriptions, false)
}

/// The same with `"snapshot":true` where it was asked for: a list that [`parse_list`](super::parse_list) reads as it was.
pub fn write_list(subscriptions: &[Subscription]) -> String {
    write(subscriptions, true)
}

fn write(subscriptions: &[Subscription], with_snapshot: bool) -> String {
    let mut out = String::from("[");
    for (at, subscription) in subscriptions.iter().enumerate() {
        separate(at, &mut out);
        out.push_str("{\"eventType\":");
        write_string(&subscription.event_type, &mut out);
        out.push_str(",\"oneOf\":[");
        for (at, alternative) in subscription.one_of.iter().enumerate() {
            separate(at, &mut out);
            out.push('{');
            for (at, constraint) in alternative.iter().enumerate() {
                separate(at, &mut out);
                write_string(&constraint.field, &mut out);
                out.push(':');
                let written = out.len();
                let encoded =
                    Reader::new(constraint.json.as_bytes()).and_then(|mut reader| write_value(&mut reader, &mut out));
                if encoded.is_err() {
                    out.truncate(written);
                    out.push_str(&constraint.json);
                }
            }
            out.push('}');
        }
        out.push(']');
        if with_snapshot && subscription.snapshot {
            out.push_str(",\"snapshot\":true");
        }
        out.push('}');
    }
    out.push(']');
    out
}

fn separate(at: usize, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
}

fn write_value(reader: &mut Reader<'_>, out: &mut String) -> Result<(), ValueError> {
    match reader.kind()? {
        Kind::Null => out.push_str("null"),
        Kind::True => out.push_str("true"),
        Kind::False => out.push_str("false"),
        Kind::Number => write_number(&reader.number()?, out),
        Kind::String => {
            let mut decoded = Vec::new();
            reader.string(&mut decoded)?;
            write_string(&String::from_utf8_lossy(&decoded), out);
        }
        Kind::Array => {
            out.push('[');
            reader.enter_array()?;
            let mut count = 0;
            while reader.next_element(count == 0)? {
                separate(count, out);
                write_value(reader, out)?;
                count += 1;
            }
            out.push(']');
        }
        Kind::Object => write_object(reader, out)?,
    }
    Ok(())
}

fn write_object(reader: &mut Reader<'_>, out: &mut String) -> Result<(), ValueError> {
    reader.enter_object()?;
    let mut members: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    let mut first = true;
    loop {
        let mut key = Vec::new();
        if !reader.next_key(first, &mut key)? {
            break;
        }
        first = false;
        let mut value = String::new();
        write_value(reader, &mut value)?;
        members.entry(key).or_insert(value);
    }
    out.push('{');
    for (at, (key, value)) in members.iter().enumerate() {
        separate(at, out);
        write_string(&String::from_utf8_lossy(key), out);
        out.push(':');
        out.push_str(value);
    }
    out.push('}');
    Ok(())
}

fn write_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn write_number(number: &NumberText<'_>, out: &mut String) {
    if number.fraction.is_empty() && number.exponent.is_none() {
        out.push_str(if number.integer == "0" { "0" } else { number.text });
        return;
    }
    match number.text.parse::<f64>() {
        Ok(float) if float.is_finite() => write_float(float, out),
        _ => out.push_str(number.text),
    }
}

/// Prints a finite double as Erlang's `float_to_binary(Float, [short])` does: the fewest digits that read back as the
/// same double, in decimal notation if that is not longer than the scientific one and the number is below 2^53.
fn write_float(float: f64, out: &mut String) {
    let scientific = format!("{:e}", float.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let exponent_value: i32 = exponent.parse().unwrap_or_default();
    let length = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let point = exponent_value + 1;
    let exponent_cost = i32::try_from(exponent.len()).unwrap_or(i32::MAX) + if length == 1 { 3 } else { 2 };
    let decimal = float.abs() < 9_007_199_254_740_992.0
        && (if point < 0 { 2 - point <= exponent_cost } else { point < length || point - length + 2 <= exponent_cost });
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    if float.is_sign_negative() {
        out.push('-');
    }
    if !decimal {
        let (first, rest) = digits.split_at(1);
        let rest = if rest.is_empty() { "0" } else { rest };
        out.push_str(&format!("{first}.{rest}e{exponent}"));
    } else if point <= 0 {
        out.push_str(&format!("0.{}{digits}", zeros(-point)));
    } else if point >= length {
        out.push_str(&format!("{digits}{}.0", zeros(point - length)));
    } else {
        let (integer, fraction) = digits.split_at(usize::try_from(point).unwrap_or_default());
        out.push_str(&format!("{integer}.{fraction}"));
    }
}
