//! From text to a plan and everything that is wrong with the text.

use muster_model::{Finding, Severity};
use sha2::{Digest as _, Sha256};

use crate::{
    decode,
    document::Plan,
    fields,
    position::Positions,
    references,
    report::{self, Report},
    shape, tree,
};

/// What became of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What could be understood, also beside errors; `None` when nothing could.
    pub plan: Option<Plan>,
    /// All that is wrong with the text, in its order.
    pub findings: Vec<Finding>,
    /// Where everything stands.
    pub positions: Positions,
}

impl Parsed {
    /// Whether the text came without errors, so that each name in the plan leads somewhere.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Reads a plan. All mistakes of the text are found in one go: of form, of names, of templates.
/// Whether the plan keeps its promises is for [`crate::assess`] to say.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let root = match tree::parse(text) {
        Ok(root) => root,
        Err(error) => return unreadable(&error),
    };
    let mut findings = shape::check(&root, &fields::PLAN);
    let mut positions = Positions::of_tree(&root);
    let plan = matches!(root.content, tree::Content::Map(_))
        .then(|| decode::plan(&root, revision(text), &mut positions));
    if let Some(plan) = &plan {
        let mut report = Report::new(&positions);
        references::check(plan, &root, &mut report);
        findings.extend(report.into_findings());
    }
    report::sort(&mut findings);
    Parsed { plan, findings, positions }
}

fn unreadable(error: &tree::SyntaxError) -> Parsed {
    let findings = vec![syntax_finding(error)];
    Parsed { plan: None, findings, positions: Positions::default() }
}

fn syntax_finding(error: &tree::SyntaxError) -> Finding {
    Finding {
        code: "yaml-syntax".to_owned(),
        severity: Severity::Error,
        path: String::new(),
        line: error.at.line,
        column: error.at.column,
        message: format!("this is no YAML that a plan can be: {}", error.message),
        help: Some("look at this line and the one above it".to_owned()),
    }
}

/// As `sha256sum` prints it.
fn revision(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A plan's text as JSON sees it, for validators of the schema; of duplicate keys the first
/// counts.
///
/// # Errors
/// Gives the finding that says where the text is no YAML.
pub fn to_json(text: &str) -> Result<serde_json::Value, Finding> {
    tree::parse(text).map(|root| root.to_json()).map_err(|error| syntax_finding(&error))
}
