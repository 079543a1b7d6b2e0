//! The little XML that object stores answer with.

/// The text of the first element of this name. The answers of S3, Azure and Google are XML, as
/// flat as it gets.
pub(crate) fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// A text without the marks that stand for others.
pub(crate) fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&apos;", "'").replace("&#39;", "'").replace("&amp;", "&")
}

/// A text with marks for what would end it.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unescaped() {
        assert_eq!(unescaped("a&amp;lt;&lt;b"), "a&lt;<b");
        assert_eq!(unescaped(&escaped("a&lt;<b>")), "a&lt;<b>");
    }
}
