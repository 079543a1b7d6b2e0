//! Links: what a Markdown page refers to by a relative path exists.

use super::Violation;
use crate::workspace::{File, Tree};

/// Finds relative links of Markdown pages that lead nowhere.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let pages = tree.files.iter().filter(|file| file.path.ends_with(".md"));
    pages.flat_map(|page| check_page(page, tree)).collect()
}

fn check_page(page: &File, tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (line, target) in links(&page.text) {
        let Some(path) = local_path(&target) else { continue };
        let leads_somewhere = resolve(&page.path, path).is_some_and(|path| tree.exists(&path));
        if !leads_somewhere {
            let wrong = format!("the link to `{target}` leads nowhere");
            violations.push(Violation::new(&page.path, line, wrong, "correct or delete it"));
        }
    }
    violations
}

/// The targets of links, images and link definitions, with their lines; code is left out.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_fence = false;
    for (i, line) in text.lines().enumerate() {
        in_fence ^= line.trim_start().starts_with("```");
        if !in_fence {
            let line = without_code(line);
            found.extend(targets(&line).into_iter().map(|target| (i + 1, target.to_owned())));
        }
    }
    found
}

/// `[text](target)` wherever it stands, `[name]: target` at the beginning of a line.
fn targets(line: &str) -> Vec<&str> {
    let inline = line.match_indices("](").filter_map(|(at, _)| {
        let rest = &line[at + 2..];
        Some(&rest[..rest.find(')')?])
    });
    let definition = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    inline.chain(definition.map(|(_, target)| target)).map(without_title).collect()
}

/// `<target> "title"` is about `target`.
fn without_title(target: &str) -> &str {
    target.split_whitespace().next().unwrap_or_default().trim_matches(['<', '>'])
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The path of a relative link without its fragment; none for other links.
fn local_path(target: &str) -> Option<&str> {
    let path = target.split('#').next().unwrap_or_default();
    let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
    (!is_elsewhere && !path.is_empty()).then_some(path)
}

/// The path from the root; none where it would leave the repository. A path that begins with
/// `/` counts from the root, as on the pages of a hosted repository.
fn resolve(page: &str, target: &str) -> Option<String> {
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let base = if target.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::places;
    use super::*;

    fn check_page(text: &str) -> Vec<String> {
        let other = ("docs/errors/locked.md", "");
        places(&check(&Tree::of(&[("docs/a.md", text), ("README.md", ""), other])))
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        for link in [
            "[a](errors/locked.md)",
            "[a](errors/locked.md#help) [b](../README.md)",
            "[a](errors/) [b](.)",
            "![a](/README.md \"title\")",
            "[a](https://example.org/x) [b](#here) [c](mailto:a@example.org)",
            "[name]: ../README.md",
            "`[a](gone.md)`",
            "```\n[a](gone.md)\n```",
        ] {
            assert!(check_page(link).is_empty(), "{link}");
        }
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        for link in ["[a](gone.md)", "[a](../../README.md)", "[a]: README.md", "![a](x.png \"t\")"]
        {
            assert_eq!(check_page(&format!("\n{link}")), ["docs/a.md:2"], "{link}");
        }
    }
}
