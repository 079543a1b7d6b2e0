//! Deleting many objects with one request.
//!
//! Asked here and not through `object_store`, which takes the word of a store for more than it
//! may: an object that the answer does not name counts as deleted there, and one that it names
//! unasked ends in a panic. Here only what was asked for is looked at, and of what the answer does
//! not speak, nothing is taken to be known.
//!
//! # Source
//! Amazon S3, API reference, `DeleteObjects`.

use std::collections::HashMap;

use super::xml::{element, escaped, unescaped};

/// How much of a code is kept; S3's have some forty.
const CODE_CHARS_MAX: usize = 100;

/// How much of a message is kept.
const MESSAGE_CHARS_MAX: usize = 300;

/// What an answer says of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing.
    Nothing,
    /// It is gone, or was before.
    Gone,
    /// It is there still.
    Refused {
        /// S3's word for why.
        code: String,
        /// Why, for people.
        message: String,
    },
}

/// The body of a request that deletes objects.
pub(crate) fn request(keys: &[String]) -> String {
    let objects: String =
        keys.iter().map(|key| format!("<Object><Key>{}</Key></Object>", escaped(key))).collect();
    format!("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{objects}</Delete>")
}

/// What the answer says of each of `keys`. A refusal counts for more than a success. The answer is
/// gone through once, whatever stands in it.
pub(crate) fn told(answer: &str, keys: &[String]) -> Vec<Told> {
    let places: HashMap<&str, usize> =
        keys.iter().enumerate().map(|(place, key)| (key.as_str(), place)).collect();
    let mut told = vec![Told::Nothing; keys.len()];
    let mut rest = answer;
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        let (end, is_gone) = if rest.starts_with("<Deleted>") {
            ("</Deleted>", true)
        } else if rest.starts_with("<Error>") {
            ("</Error>", false)
        } else {
            rest = &rest[1..];
            continue;
        };
        let Some((entry, after)) = rest.split_once(end) else { break };
        rest = after;
        let Some(place) = key_of(entry).and_then(|key| places.get(key.as_str())) else { continue };
        let place = &mut told[*place];
        match (is_gone, &place) {
            (true, Told::Nothing) => *place = Told::Gone,
            (false, Told::Nothing | Told::Gone) => *place = refusal(entry),
            _ => {}
        }
    }
    told
}

fn key_of(entry: &str) -> Option<String> {
    element(entry, "Key").map(unescaped)
}

fn refusal(entry: &str) -> Told {
    let text = |name, chars_max| {
        let text = element(entry, name).map(unescaped).unwrap_or_default();
        text.chars().filter(|c| !c.is_control()).take(chars_max).collect::<String>()
    };
    let (code, message) = (text("Code", CODE_CHARS_MAX), text("Message", MESSAGE_CHARS_MAX));
    match code.as_str() {
        "NoSuchKey" | "NoSuchVersion" => Told::Gone,
        _ => Told::Refused { code, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<String> {
        ["a/1", "a/2&", "a/3", "a/4"].map(str::to_owned).to_vec()
    }

    fn refused(code: &str) -> Told {
        Told::Refused { code: code.to_owned(), message: String::new() }
    }

    #[test]
    fn each_object_has_its_answer() {
        let answer = "<?xml version=\"1.0\"?><DeleteResult xmlns=\"x\">\
            <Deleted><Key>a/1</Key></Deleted>\
            <Error><Key>a/2&amp;</Key><Code>AccessDenied</Code></Error>\
            <Error><Key>a/3</Key><Code>NoSuchKey</Code></Error></DeleteResult>";
        let expected = [Told::Gone, refused("AccessDenied"), Told::Gone, Told::Nothing];
        assert_eq!(told(answer, &keys()), expected);
    }

    #[test]
    fn what_was_not_asked_for_is_passed_over() {
        let answer = "<Error><Key>../other</Key><Code>X</Code></Error><Error></Error>\
            <Deleted><Key></Key></Deleted><Deleted><Key>a/1</Key></Deleted>\
            <Error><Key>a/1</Key><Code>First</Code></Error>\
            <Error><Key>a/1</Key><Code>Second</Code></Error>\
            <Deleted><Key>a/1</Key></Deleted><Deleted><Key>a/3";
        let nothing = || Told::Nothing;
        assert_eq!(told(answer, &keys()), [refused("First"), nothing(), nothing(), nothing()]);
        for answer in ["", "<html>welcome</html>", "<Error><Code>InternalError</Code></Error>"] {
            assert_eq!(told(answer, &keys()), vec![Told::Nothing; 4]);
        }
    }

    #[test]
    fn names_are_escaped() {
        let body = request(&keys());
        assert!(body.contains("<Object><Key>a/1</Key></Object>"), "{body}");
        assert!(body.contains("<Key>a/2&amp;</Key>"), "{body}");
    }

    /// Each of these would take hours if every entry was looked for in all of the rest.
    #[test]
    fn an_answer_is_gone_through_once() {
        for entry in ["<Deleted></Deleted>", "<Error>", "<Error></Error>", "<<<<"] {
            let answer = entry.repeat((1 << 20) / entry.len());
            assert_eq!(told(&answer, &keys()), vec![Told::Nothing; 4]);
        }
    }
}
