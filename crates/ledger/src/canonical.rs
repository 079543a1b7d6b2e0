//! The one way to write a JSON value as bytes.
//!
//! Hashes are over bytes, so a value that is hashed needs exactly one encoding: keys sorted by
//! their UTF-8 bytes, no white space, strings escaped no more than JSON demands, numbers as
//! `serde_json` prints them (integers in full, floats with the fewest digits that read back to
//! the same float). This is close to RFC 8785 and differs in two points: keys are sorted by
//! code point rather than UTF-16 unit, and a float that is whole keeps its `.0`.
//!
//! Whoever verifies hashes the bytes that are there and never writes them anew.

use serde_json::Value;

/// Gives the canonical bytes of a value, as text.
#[must_use]
pub fn encode(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

/// Reads bytes that must be the canonical encoding of what they say.
pub(crate) fn decode(bytes: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    (encode(&value).as_bytes() == bytes).then_some(value)
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                separate(i, text);
                write(item, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            // Sorted here, since a feature of serde_json elsewhere may change its map's order.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            text.push('{');
            for (i, (key, member)) in members.into_iter().enumerate() {
                separate(i, text);
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write(member, text);
            }
            text.push('}');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}

fn separate(i: usize, text: &mut String) {
    if i > 0 {
        text.push(',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(value: &Value, expected: &str) {
        assert_eq!(encode(value), expected);
        assert_eq!(decode(expected.as_bytes()).as_ref(), Some(value));
    }

    #[test]
    fn values_have_one_encoding() {
        check(
            &json!({"b": [1, -2, null, true], "a": {"": ""}}),
            r#"{"a":{"":""},"b":[1,-2,null,true]}"#,
        );
        check(
            &json!({"z": 1, "é": 2, "€": 3, "𐐀": 4, "Z": 5}),
            r#"{"Z":5,"z":1,"é":2,"€":3,"𐐀":4}"#,
        );
        check(&json!([0.1, 1.0, 1e300, 5e-324, 1.5]), "[0.1,1.0,1e+300,5e-324,1.5]");
        check(&json!([u64::MAX, i64::MIN]), "[18446744073709551615,-9223372036854775808]");
        check(&json!("a\"\\\n\u{1}/\u{7f}é"), "\"a\\\"\\\\\\n\\u0001/\u{7f}é\"");
    }

    #[test]
    fn other_encodings_are_refused() {
        for text in
            ["{ }", "{\"b\":1,\"a\":2}", "{\"a\":1,\"a\":1}", "1.0e0", "\"\\u0061\"", "1 ", "{"]
        {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }
}
