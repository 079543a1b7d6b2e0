//! A finding beside the text that it is about.
//!
//! Texts of a plan are not obeyed: what would steer a terminal, or turn the direction of a line
//! so that it reads as another one, is replaced, one character for one, so that columns hold.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError,
    MietteSpanContents, SourceCode, SourceSpan, SpanContents,
};
use muster_model::{Finding, Severity};

use crate::output::{Output, terminal_width, visible};

/// As wide as findings are where nobody says how wide the page is.
const WIDTH_DEFAULT: usize = 100;
/// Narrower, words break; wider, eyes lose the line.
const WIDTHS: std::ops::RangeInclusive<usize> = 40..=140;

/// Shows findings of one text.
pub(super) struct Snippets {
    handler: GraphicalReportHandler,
    source: Source,
}

impl Snippets {
    /// For a text and the name that is shown for it.
    pub(super) fn new(name: &str, text: &str, output: &Output) -> Self {
        let theme = match output.colors_results() {
            true => GraphicalTheme::unicode(),
            false => GraphicalTheme::unicode_nocolor(),
        };
        let width = terminal_width().map_or(WIDTH_DEFAULT, usize::from);
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(width.clamp(*WIDTHS.start(), *WIDTHS.end()))
            .with_links(false)
            .without_syntax_highlighting();
        Self { handler, source: Source { name: name.to_owned(), text: harmless(text) } }
    }

    /// The finding as a paragraph.
    pub(super) fn render(&self, finding: &Finding) -> String {
        let span = self.source.span(finding.line, finding.column);
        let shown = Shown { finding, source: &self.source, span };
        let mut text = String::new();
        match self.handler.render_report(&mut text, &shown) {
            Ok(()) => text,
            // A string takes all text; if a part of the drawing does not, the words remain.
            Err(fmt::Error) => format!("{}:{}: {shown}\n", finding.line, finding.column),
        }
    }
}

/// A text that may be shown, and its name.
#[derive(Debug)]
struct Source {
    name: String,
    text: String,
}

impl Source {
    /// The word that begins at a line and column, both from 1.
    fn span(&self, line: usize, column: usize) -> SourceSpan {
        let lines = self.text.split_inclusive('\n');
        let start: usize = lines.clone().take(line.saturating_sub(1)).map(str::len).sum();
        let line = self.text[start..].lines().next().unwrap_or_default();
        let before = line.chars().take(column.saturating_sub(1)).map(char::len_utf8).sum::<usize>();
        SourceSpan::from((start + before, word(&line[before..])))
    }

    /// The column of a byte, in characters, from 0.
    fn column(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        before.rsplit('\n').next().map_or(0, |line| line.chars().count())
    }
}

/// Bytes of the word, the quoted text or the bracket at the beginning.
fn word(text: &str) -> usize {
    let ends = |position: usize, c: char| match c {
        ',' | '}' | ']' => true,
        ':' => text[position + 1..].starts_with([' ', '\n']) || position + 1 == text.len(),
        '#' => text[..position].ends_with(' '),
        _ => false,
    };
    let length = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => text[1..].find(quote).map_or(text.len(), |end| end + 2),
        Some('{' | '[') => 1,
        _ => text.char_indices().find(|(at, c)| ends(*at, *c)).map_or(text.len(), |(at, _)| at),
    };
    text[..length].trim_end().len()
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let read = self.text.read_span(span, lines_before, lines_after)?;
        let column = self.column(read.span().offset());
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            read.data(),
            *read.span(),
            read.line(),
            column,
            read.line_count(),
        )))
    }
}

/// A finding in its text.
#[derive(Debug)]
struct Shown<'a> {
    finding: &'a Finding,
    source: &'a Source,
    span: SourceSpan,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&harmless_line(&self.finding.message))
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("{}[{}]", self.finding.severity, self.finding.code)))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.finding.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
            Severity::Note => miette::Severity::Advice,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help = self.finding.help.as_deref()?;
        Some(Box::new(harmless_line(help)))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let path = &self.finding.path;
        let label = (!path.is_empty()).then(|| harmless_line(path));
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(label, self.span))))
    }
}

/// A text as it may be shown, with its lines as YAML counts them.
fn harmless(text: &str) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\r' => '\n',
            '\0'..'\u{20}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}'),
            _ if c.is_control() || turns_direction(c) => '\u{fffd}',
            _ => c,
        })
        .collect()
}

/// One line of a message; see [`visible`].
fn harmless_line(text: &str) -> String {
    visible(text.as_bytes()).replace(turns_direction, "\u{fffd}")
}

/// Marks by which a text reads in another order than it stands.
fn turns_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { name: "plan".to_owned(), text: harmless(text) }
    }

    #[test]
    fn a_word_is_marked_where_it_stands() {
        let text = "name: größe\r\nlist: [a, 'b c', \"d\"]\nkey: {x: 1} # why\n";
        let source = source(text);
        let check = |line, column, expected: &str| {
            let span = source.span(line, column);
            let word = &source.text[span.offset()..span.offset() + span.len()];
            assert_eq!(word, expected, "{line}:{column}");
        };
        check(1, 1, "name");
        check(1, 7, "größe");
        check(2, 8, "a");
        check(2, 11, "'b c'");
        check(2, 18, "\"d\"");
        check(3, 6, "{");
        check(3, 7, "x");
        check(3, 10, "1");
        check(3, 99, "");
        check(9, 1, "");
    }

    #[test]
    fn columns_are_characters() {
        let source = source("größe: x\n");
        let read = source.read_span(&source.span(1, 8), 0, 0).unwrap();
        assert_eq!((read.line(), read.column()), (0, 7));
    }

    #[test]
    fn a_text_does_not_steer_the_terminal() {
        assert_eq!(harmless("a\x1b[31m\u{202e}b\tc\rd\u{9b}"), "a␛[31m\u{fffd}b\tc\nd\u{fffd}");
        assert_eq!(harmless_line("a\x1b\n\u{202e}"), "a\\u{1b}\\n\u{fffd}");
    }
}
