//! No text makes the reader stumble.

use muster_model::Severity;
use muster_plan::{Detected, Facts, codes, parse, starter};
use proptest::prelude::*;

use crate::common::check;

/// Everything is run, and whatever is found has a place and a code that the table knows.
fn check_any(text: &str) {
    for finding in check(text, &Facts::default()) {
        assert!(finding.line > 0 && finding.column > 0, "{finding:?}");
        assert!(codes::find(&finding.code).is_some(), "{finding:?}");
    }
    if let Some(plan) = parse(text).plan {
        assert_eq!(muster_plan::diff(&plan, &plan), []);
        let shown = muster_plan::show(&plan, &Facts::default(), crate::common::now());
        assert!(serde_json::to_value(shown).is_ok());
    }
}

/// Plans with pieces taken out, doubled and swapped.
fn mangled() -> impl Strategy<Value = String> {
    let text = include_str!("fixtures/product.yaml");
    let length = text.chars().count();
    let noise = prop_oneof![
        Just("\n".to_owned()),
        Just("[".to_owned()),
        Just("{".to_owned()),
        Just("*a".to_owned()),
        Just("&a ".to_owned()),
        Just(": ".to_owned()),
        Just("- ".to_owned()),
        Just("{{ x ".to_owned()),
        Just("99999999999999999999d".to_owned()),
        "\\PC{0,5}",
    ];
    let edits = prop::collection::vec((0..length, 0..20_usize, noise), 1..6);
    edits.prop_map(move |edits| {
        let mut characters: Vec<char> = text.chars().collect();
        for (at, less, noise) in edits {
            let at = at.min(characters.len());
            let end = (at + less).min(characters.len());
            characters.splice(at..end, noise.chars());
        }
        characters.into_iter().collect()
    })
}

/// YAML of any shape, with the words of plans.
fn shapes() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "muster",
        "name",
        "services",
        "data",
        "protect",
        "every",
        "objectives",
        "host-loss",
        "rto",
        "tiers",
        "recover",
        "start",
        "acceptance",
        "probes",
        "http",
        "expect",
        "1",
        "1h",
        "none",
        "drills",
        "schedule",
        "\"* * * * *\"",
        "\"{{ x }}\"",
        "null",
        "true",
        "depends_on",
        "a",
    ]);
    let leaf = word.clone().prop_map(str::to_owned);
    let tree = leaf.prop_recursive(6, 60, 5, move |inner| {
        let pair = (word.clone(), inner.clone()).prop_map(|(key, value)| format!("{key}: {value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec(pair, 0..5).prop_map(|pairs| format!("{{{}}}", pairs.join(", "))),
        ]
    });
    tree.prop_map(|tree| format!("muster: 1\nname: a\nservices: {{a: {tree}}}\ntiers: {tree}\n"))
}

/// What `muster init` may come across.
fn detected() -> impl Strategy<Value = Detected> {
    let texts = || prop::collection::vec("\\PC{0,20}", 0..3);
    let urls = prop::collection::vec("postgres(ql)?://([a-z]{1,5}(:\\PC{0,5})?@)?\\PC{0,12}", 0..3);
    let all = ("\\PC{0,12}", texts(), urls, texts(), texts());
    all.prop_map(|(name, sqlite_files, postgres_urls, compose_services, folders)| Detected {
        name,
        sqlite_files,
        postgres_urls,
        compose_services,
        folders,
    })
}

proptest! {
    #[test]
    fn any_text_is_read(text in any::<String>()) {
        check_any(&text);
    }

    #[test]
    fn any_lines_of_yaml_are_read(text in "[-a-z0-9:{}\\[\\],&*!|>'\"%@`#? \n\t]{0,80}") {
        check_any(&text);
    }

    #[test]
    fn any_mangled_plan_is_read(text in mangled()) {
        check_any(&text);
    }

    #[test]
    fn any_shape_is_read(text in shapes()) {
        check_any(&text);
    }

    #[test]
    fn every_starter_plan_comes_without_errors(detected in detected()) {
        let text = starter(&detected);
        let errors = check(&text, &Facts::default());
        let errors: Vec<_> =
            errors.iter().filter(|finding| finding.severity == Severity::Error).collect();
        prop_assert!(errors.is_empty(), "{errors:?}\n{text}");
    }
}

#[test]
fn a_starter_plan_names_what_was_found_and_no_password() {
    let detected = Detected {
        name: "My Shop".to_owned(),
        sqlite_files: vec!["./data/app.db".to_owned()],
        postgres_urls: vec!["postgres://u:hunter2@h:5432/orders?password=hunter2".to_owned()],
        compose_services: vec!["web".to_owned()],
        folders: vec!["./uploads".to_owned()],
    };
    let text = starter(&detected);
    assert!(!text.contains("hunter2"), "{text}");
    let plan = parse(&text).plan.unwrap();
    assert_eq!((plan.name.as_str(), plan.services[0].name.as_str()), ("My Shop", "my_shop"));
    let data = plan.services[0].data.iter();
    let found: Vec<_> = data.map(|item| (item.name.as_str(), item.source.kind())).collect();
    assert_eq!(found, [("orders", "postgres"), ("app", "sqlite"), ("uploads", "files")]);
    assert!(text.contains("web"));
}
