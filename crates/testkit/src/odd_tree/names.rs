//! File names that tools trip over.

/// Names in UTF-8, each legal on Linux.
pub(super) fn odd() -> Vec<Vec<u8>> {
    const NAMES: &[&str] = &[
        "new\nline",
        "tab\tulator",
        "carriage\rreturn",
        "bell\u{7}escape\u{1b}[31mred",
        "\u{1}",
        "delete\u{7f}",
        "next-line\u{85}c1-control\u{9b}",
        "line-separator\u{2028}paragraph\u{2029}",
        "double\"quote",
        "single'quote",
        "back\\slash",
        "back\\nslash-n",
        "\\xff-spelled-out",
        "\\u2028-spelled-out",
        "<>&",
        "&amp;",
        "%41%00",
        "-leading-dash",
        "--help",
        "~",
        "#hash",
        "$(touch pwned)`id`;|&*?[]{}!",
        " leading-and-trailing-space ",
        " ",
        "trailing-dot.",
        "...",
        "..dots",
        ".hidden",
        "C:",
        "CON",
        "umlaut-composed-\u{e4}",
        "umlaut-composed-a\u{308}",
        "case",
        "CASE",
        "emoji-\u{1f980}-\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
        "right-to-left-\u{202e}txt.exe",
        "zero-width-\u{200b}-no-break-\u{a0}-soft-hyphen-\u{ad}",
        "\u{feff}byte-order-mark",
        "replacement-\u{fffd}",
        "private-\u{e000}",
        "not-a-character-\u{ffff}-\u{10ffff}",
        "unassigned-\u{378}",
        "ideographic-space-\u{3000}",
        "a-b",
        "a0",
        "config",
    ];
    NAMES.iter().map(|name| name.as_bytes().to_vec()).collect()
}

/// Names that are not UTF-8.
pub(super) fn raw() -> Vec<Vec<u8>> {
    const NAMES: &[&[u8]] = &[
        b"\xff",
        b"latin-1-\xe4\xf6\xfc",
        b"cut-short-\xe2\x80",
        b"stray-\x80-continuation",
        b"overlong-\xc0\xaf",
        b"surrogate-\xed\xa0\x80",
        b"too-high-\xf4\x90\x80\x80",
        b"both-\xc3\xa4-and-\xe4",
        b"quote\"\xff\\newline\n",
        b"replaced-\xef\xbf\xbd-and-\xff",
    ];
    NAMES.iter().map(|name| name.to_vec()).collect()
}

/// Names of 255 bytes, the longest that Linux takes.
pub(super) fn long(with_raw: bool) -> Vec<Vec<u8>> {
    let mut names = vec![vec![b'l'; 255], "\u{20ac}".repeat(85).into_bytes(), vec![b'\\'; 255]];
    if with_raw {
        names.push(vec![0xfe; 255]);
    }
    names
}
