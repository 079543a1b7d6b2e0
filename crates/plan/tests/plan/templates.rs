//! Templates: strict, bounded, and the seam between a drill and a recovery.

use std::collections::BTreeMap;

use muster_model::{Fault as _, ProbeCheck, Step, probe::Database};
use muster_plan::template::{
    TargetData, TargetNames, TemplateError, render, render_probe, render_step,
};

use crate::common::{of_code, plan};

fn names() -> TargetNames {
    let db = TargetData { path: None, url: Some("postgresql://127.0.0.1:5/orders".to_owned()) };
    let uploads = TargetData { path: Some("/t/uploads".to_owned()), url: None };
    TargetNames {
        dir: "/t".to_owned(),
        port: 8080,
        url: "http://127.0.0.1:8080".to_owned(),
        data: BTreeMap::from([("db".to_owned(), db), ("up-loads".to_owned(), uploads)]),
    }
}

fn check(text: &str, expected: &str) {
    assert_eq!(render(text, &names()).as_deref(), Ok(expected), "{text}");
}

fn check_unknown(text: &str, name: &str, near: Option<&str>) {
    let nearest = near.map(str::to_owned);
    let expected = TemplateError::UnknownName { name: name.to_owned(), nearest };
    assert_eq!(render(text, &names()), Err(expected), "{text}");
}

#[test]
fn names_are_filled_in() {
    check("--port={{ target.port }}", "--port=8080");
    check("{{ target.url }}/health?a=1&b=<2>", "http://127.0.0.1:8080/health?a=1&b=<2>");
    check("{{ target.data.db.url }}", "postgresql://127.0.0.1:5/orders");
    check("{{ target.data[\"up-loads\"].path }}\n", "/t/uploads\n");
    check("{% if target.port > 80 %}{{ target.dir }}{% endif %}", "/t");
    check("no template", "no template");
}

#[test]
fn what_is_not_known_is_an_error_and_never_empty() {
    check_unknown("{{ target.prot }}", "target.prot", Some("target.port"));
    check_unknown("{{ target.data.db.path }}", "target.data.db.path", Some("target.data.db.url"));
    check_unknown("{{ port }}", "port", None);
    check_unknown("{% if false %}{{ nothing }}{% endif %}", "nothing", None);
    assert!(render("{{ target.data[\"other\"].path }}", &names()).is_err());
    for text in
        ["{{ target.port", "{{ env('HOME') }}", "{{ target.port | shout }}", "{% include 'x' %}"]
    {
        let error = render(text, &names()).unwrap_err();
        assert!(error.help().is_some(), "{text}: {error}");
    }
}

#[test]
fn a_template_cannot_cost_much() {
    let loops = "{% for a in 'xxxxxxxxxxxxxxxxxxxx' %}".repeat(12)
        + "{{ target.port }}"
        + &"{% endfor %}".repeat(12);
    assert!(matches!(render(&loops, &names()), Err(TemplateError::Invalid { .. })));
    let long = format!("{{{{ target.port }}}}{}", "x".repeat(100_000));
    assert!(matches!(render(&long, &names()), Err(TemplateError::Invalid { .. })));
}

#[test]
fn steps_and_probes_are_rendered_as_a_whole() {
    let plan = plan(include_str!("fixtures/product.yaml"));
    let orders = plan.service("orders").unwrap();
    let names = TargetNames { port: 9, ..TargetNames::stand_in(orders) };
    let step = render_step(&orders.recover[1], &names).unwrap();
    let Step::Start { argv, .. } = step else { panic!("it starts the server") };
    assert_eq!(
        argv,
        ["orders-server", "--database", "postgresql://127.0.0.1:1/data", "--port", "9"]
    );
    let probe = render_probe(&orders.acceptance.probes[1], orders, &names).unwrap();
    let ProbeCheck::Sql { database, .. } = probe.check else { panic!("it is a query") };
    assert_eq!(database, Database::Postgres("postgresql://127.0.0.1:1/data".to_owned()));
    let nowhere = TargetNames::default();
    let error = render_probe(&orders.acceptance.probes[1], orders, &nowhere).unwrap_err();
    assert_eq!(error, TemplateError::NoDatabase { data: "db".to_owned() });
}

#[test]
fn every_template_of_a_plan_is_tried() {
    let text = "muster: 1
name: shop
services:
  orders:
    tier: standard
    data: {db: {sqlite: a.db}}
    recover:
      - {restore: db}
      - {run: [a, \"{{ x1 }}\"], env: {A: \"{{ x2 }}\"}, dir: \"{{ x3 }}\"}
    acceptance:
      probes:
        a: {http: \"{{ x4 }}\"}
        b: {tcp: \"{{ x5 }}\"}
        c: {sql: \"{{ x6 }}\", on: db, expect: 1}
        d: {command: [\"ü\", \"ü{{ x7 }}\"]}
        e: {http: \"{{ target.data.db.url }}\"}
";
    let found = of_code(text, "template-unknown-name");
    let places: Vec<_> = found.iter().map(|finding| (finding.line, finding.column)).collect();
    assert_eq!(
        places,
        [(9, 23), (9, 45), (9, 63), (12, 23), (13, 22), (14, 22), (15, 33), (16, 23)]
    );
    assert_eq!(found[0].path, "services.orders.recover[1].run[1]");
    assert_eq!(found[7].help.as_deref(), Some("did you mean 'target.data.db.path'?"));
}
