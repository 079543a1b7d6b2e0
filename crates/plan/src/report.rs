//! Where checks leave what they find: a code and a path go in, a whole finding comes out.

use muster_model::{Finding, Severity};

use crate::{codes, position::Positions, tree::Position};

/// Findings of one round of checks.
pub(crate) struct Report<'a> {
    positions: &'a Positions,
    findings: Vec<Finding>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(positions: &'a Positions) -> Self {
        Self { positions, findings: Vec::new() }
    }

    pub(crate) fn positions(&self) -> &'a Positions {
        self.positions
    }

    /// Adds a finding with the severity of its code.
    pub(crate) fn add(
        &mut self,
        code: &'static str,
        path: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add_as(codes::severity(code), code, path, message, help);
    }

    /// Adds a finding that weighs more or less than its code usually does.
    pub(crate) fn add_as(
        &mut self,
        severity: Severity,
        code: &'static str,
        path: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let at = self.positions.of(path);
        self.add_at(at, severity, code, path, message, help);
    }

    /// Adds a finding at a place within what the path leads to.
    pub(crate) fn add_at(
        &mut self,
        at: Position,
        severity: Severity,
        code: &'static str,
        path: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.findings.push(Finding {
            code: code.to_owned(),
            severity,
            path: path.to_owned(),
            line: at.line,
            column: at.column,
            message: message.into(),
            help: Some(help.into()),
        });
    }

    pub(crate) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }
}

/// Puts findings in the order of the text.
pub(crate) fn sort(findings: &mut [Finding]) {
    findings.sort_by(|first, second| {
        let key = |finding: &Finding| (finding.line, finding.column);
        key(first).cmp(&key(second)).then_with(|| first.code.cmp(&second.code))
    });
}
