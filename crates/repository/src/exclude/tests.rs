//! Cases follow restic's tests in kind. Apart from them, some hundred random lists of patterns of
//! the same sort were once put to restic 0.14 itself, which left out the same files.

use proptest::{collection::vec, prelude::*};

use super::*;

fn patterns(texts: &[&str]) -> Patterns {
    Patterns::parse(texts).unwrap()
}

/// Checks which of the paths the patterns match.
#[track_caller]
fn check(texts: &[&str], matched: &[&str], others: &[&str]) {
    let patterns = patterns(texts);
    for path in matched {
        assert!(patterns.matches(path.as_bytes()), "{texts:?} must match {path:?}");
        assert!(patterns.matches_with_child(path.as_bytes()).0);
    }
    for path in others {
        assert!(!patterns.matches(path.as_bytes()), "{texts:?} must not match {path:?}");
        assert!(!patterns.matches_with_child(path.as_bytes()).0);
    }
}

/// Checks below which of the paths the patterns may match something.
#[track_caller]
fn check_child(texts: &[&str], may_match: &[&str], cannot_match: &[&str]) {
    let patterns = patterns(texts);
    for path in may_match {
        assert!(patterns.matches_with_child(path.as_bytes()).1, "{texts:?} below {path:?}");
    }
    for path in cannot_match {
        assert!(!patterns.matches_with_child(path.as_bytes()).1, "{texts:?} not below {path:?}");
    }
}

#[test]
fn no_pattern_matches_nothing() {
    assert!(Patterns::default().is_empty());
    assert!(patterns(&[""]).is_empty());
    assert_eq!(Patterns::default().matches_with_child(b"/a"), (false, false));
    assert_eq!(patterns(&["a", "**"]).matches_with_child(b""), (false, false));
}

#[test]
fn relative_patterns_match_at_any_depth() {
    check(&["b"], &["b", "/b", "/a/b", "a/b", "/a/b/c"], &["/a", "/bb", "/a/bc", "/"]);
    check(&["a/b"], &["/a/b", "/x/a/b", "x/a/b/c"], &["/a", "/b/a", "/a/x/b", "/b"]);
    check(&["*.o"], &["/src/main.o", ".o", "/x.o/y"], &["/src/main.c", "/o", "/x.o.c"]);
    check(&["a/*.o"], &["/x/a/b.o"], &["/x/a/b/c.o", "/b.o"]);
}

#[test]
fn absolute_patterns_begin_at_the_root() {
    check(&["/a/b"], &["/a/b", "/a/b/c/d"], &["/a", "/x/a/b", "a/b", "/a/bc"]);
    check(&["/*/b"], &["/a/b", "/x/b/c"], &["/b", "/a/x/b"]);
    check(&["/a/*"], &["/a/b"], &["/a"]);
}

#[test]
fn the_root_matches_every_absolute_path() {
    check(&["/"], &["/", "/a", "/a/b"], &["a", "a/b"]);
    check(&["*"], &["/", "/a", "a"], &[]);
    check(&["**"], &["/a/b", "a", "/"], &[]);
}

#[test]
fn patterns_are_cleaned_but_paths_are_not() {
    check(&["/a//b/"], &["/a/b"], &["/a"]);
    check(&["/a/../b"], &["/b"], &["/a/b"]);
    check(&["/../b"], &["/b"], &["/x/b"]);
    check(&["./b/."], &["/x/b"], &["/x"]);
    check(&["a/.."], &["."], &["/a", "a"]);
    check(&["../b"], &["../b", "/x/../b"], &["/b", "b"]);
    check(&["/a/b"], &[], &["/a//b", "//a/b"]);
    check(&["b"], &["/a//b/"], &[]);
}

#[test]
fn stars_stay_within_a_component() {
    check(&["a*c"], &["ac", "abc", "abbc"], &["a/c", "abcd", "xabc"]);
    check(&["*a*b*"], &["ab", "xaxbx", "aab"], &["ba", "a", "b"]);
    check(&["a**c"], &["ac", "abc"], &["a/c", "a/b/c"]);
    check(&["***"], &["a", "/a/b"], &[]);
    check(&["/a/***/b"], &["/a/x/b"], &["/a/b", "/a/x/y/b"]);
    check(&["*.tar.*"], &["x.tar.gz", "x.tar.tar.", "x.tar.tar.gz"], &["x.tar"]);
}

#[test]
fn question_marks_take_a_character() {
    check(&["?"], &["a", "é", "日"], &["ab", "/ab"]);
    check(&["a?c"], &["abc", "aéc"], &["ac", "a/c", "abbc"]);
    let any = patterns(&["a?c"]);
    assert!(any.matches(b"a\xffc"));
    assert!(!any.matches(b"a\xff\xffc"));
}

#[test]
fn classes_take_one_character_of_theirs() {
    check(&["[a-c]x"], &["ax", "bx", "cx"], &["dx", "x", "-x", "abx"]);
    check(&["[^a-c]x"], &["dx", "éx", "^x"], &["ax", "x"]);
    check(&["[ac^]"], &["a", "c", "^"], &["b"]);
    check(&["[à-é]"], &["á", "é"], &["a", "z"]);
    check(&["[c-a]"], &[], &["a", "b", "c"]);
    check(&[r"[\]\-\\]"], &["]", "-", r"\"], &["a"]);
    check(&["[*?]"], &["*", "?"], &["a", ""]);
    check(&["[[]"], &["["], &["]"]);
    check(&["x]"], &["x]"], &["x"]);
    check(&["*[0-9]"], &["a1", "a12", "1"], &["1a"]);
    // A byte that is no character counts as U+FFFD.
    assert!(patterns(&["[\u{fffd}]"]).matches(b"\xff"));
    assert!(patterns(&["[^a]"]).matches(b"\xff"));
}

#[test]
fn a_backslash_takes_the_next_character_as_it_is() {
    check(&[r"\*"], &["*"], &["a", r"\*"]);
    check(&[r"a\b"], &["ab"], &[r"a\b"]);
    check(&[r"\[a]"], &["[a]"], &["a"]);
    check(&[r"\\"], &[r"\"], &[r"\\"]);
    check(&[r"\!a"], &["!a"], &["a"]);
    check(&[r"\é*"], &["éa", "é/a"], &["a"]);
}

#[test]
fn chunks_between_stars_are_taken_where_they_fit_first() {
    check(&["*ab*b"], &["abb", "xabxb", "ababb"], &["ab", "aba"]);
    check(&["*aab"], &["aab", "aaab"], &["aaba"]);
    // After `*` Go tries every byte, also in the middle of a character.
    check(&["*?"], &["a", "é", "aé"], &[]);
}

#[test]
fn double_stars_take_any_number_of_components() {
    check(&["/a/**/z"], &["/a/z", "/a/b/z", "/a/b/c/z", "/a/b/z/x"], &["/a", "/z", "/b/z"]);
    check(&["a/**/z"], &["/x/a/z", "x/a/b/c/z"], &["/z/a"]);
    check(&["/a/**"], &["/a/b", "/a/b/c", "/a"], &["/b", "/"]);
    check(&["**/z"], &["/z", "z", "/a/z", "/a/b/z/c"], &["/a"]);
    check(&["/**/z"], &["/z", "/a/b/z"], &["/a", "z"]);
    check(&["/**"], &["/", "/a", "/a/b"], &["a"]);
    check(&["a/**/m/**/z"], &["/a/m/z", "/a/b/m/n/z", "/q/a/b/c/m/n/o/z"], &["/a/z", "/a/m"]);
}

#[test]
fn a_second_double_star_may_not_always_be_nothing() {
    check(&["/**/x/**"], &["/x/y", "/a/x/y", "/a/b/x/y"], &["/a/x"]);
    check(&["a/**/x/**"], &["a/x/y", "a/b/x/y"], &["a/x", "a/b/x"]);
    check(&["/a/**/**/z"], &["/a/b/z", "/a/b/c/z"], &["/a/z"]);
}

#[test]
fn the_last_pattern_that_matches_decides() {
    check(&["*.o", "!keep.o"], &["/a.o"], &["/keep.o", "/a.c"]);
    check(&["!keep.o", "*.o"], &["/a.o", "/keep.o"], &[]);
    check(&["/a", "!/a/b", "/a/b/c"], &["/a", "/a/x", "/a/b/c"], &["/a/b", "/a/b/x"]);
    check(&["!a"], &[], &["a", "b"]);
    check(&["*", "!"], &["a"], &["."]);
    check(&["a", "!!a"], &["a"], &["!a"]);
}

#[test]
fn relative_patterns_may_match_below_anything() {
    check_child(&["a"], &["/", "/a", "/b/c", "x"], &[]);
    check_child(&["**/a"], &["/", "/b"], &[]);
}

#[test]
fn absolute_patterns_may_match_on_their_way_and_below() {
    check_child(&["/a/b/c"], &["/", "/a", "/a/b", "/a/b/c", "/a/b/c/d"], &["/b", "/a/c", "/a/b/x"]);
    check_child(&["/a/b/c"], &["/a/", "/a/b/"], &["/b/"]);
    check_child(&["/a/*/c"], &["/a", "/a/x", "/a/x/c"], &["/b", "/a/x/y"]);
    check_child(&["/a/**/z"], &["/a", "/a/b", "/a/b/c/d"], &["/b", "/b/a"]);
    check_child(&["/**"], &["/", "/a", "/a/b"], &["a"]);
    check_child(&["/", "/a"], &["/", "/x/y"], &[]);
}

#[test]
fn negation_takes_back_what_may_match_below() {
    check_child(&["/a/*", "!/a/b"], &["/a", "/a/x"], &["/a/b", "/a/b/c"]);
    check_child(&["/a/b/*", "!/a/b/[a-m]*"], &["/a", "/a/b", "/a/b/z"], &["/a/b/c"]);
    check_child(&["*", "!*.c"], &["/a"], &["/a.c"]);
    check_child(&["!*.c", "*"], &["/a", "/a.c"], &[]);
    check_child(&["!a"], &[], &["/a", "/b"]);
}

#[test]
fn case_can_be_ignored() {
    let patterns = Patterns::parse_ignoring_case(["*.JPG", "GRÜSSE", "[A-C]x", "İ"]).unwrap();
    for path in ["/a.jpg", "/A.Jpg", "grüsse", "Grüsse", "BX", "bx", "İ", "i"] {
        assert!(patterns.matches(path.as_bytes()), "{path}");
    }
    for path in ["/a.jpeg", "grusse", "dx", "ı"] {
        assert!(!patterns.matches(path.as_bytes()), "{path}");
    }
    assert!(!self::patterns(&["a"]).matches(b"A"));
    assert!(Patterns::parse_ignoring_case([b"\xff"]).unwrap().matches("\u{fffd}".as_bytes()));
}

#[test]
fn paths_and_patterns_are_bytes() {
    let patterns = Patterns::parse([b"\xff\xfe".as_slice(), b"*\xc3"]).unwrap();
    assert!(patterns.matches(b"/a/\xff\xfe"));
    assert!(patterns.matches(b"/a/b\xc3"));
    assert!(!patterns.matches(b"/a/\xff"));
    assert!(!patterns.matches("/a/\u{c3}".as_bytes()));
}

#[test]
fn malformed_patterns_are_all_named() {
    let error = Patterns::parse(["ok", "a/[", "*[._]log[.-][0-9]", "!x[]", "fine"]).unwrap_err();
    assert_eq!(error.patterns, ["a/[", "*[._]log[.-][0-9]", "!x[]"]);
    assert_eq!(error.to_string(), "parse patterns: malformed: a/[, *[._]log[.-][0-9], !x[]");
}

#[test]
fn refuses_what_go_refuses() {
    for text in [
        "[",
        "[a",
        "[]",
        "[]a]",
        "[^]",
        "[^",
        "[-]",
        "[-a]",
        "[a-]",
        "[a-",
        "[--a]",
        "[a-]]",
        "[a-z-9]",
        r"\",
        r"a\",
        r"a\/b",
        r"[\",
        r"[\]",
        r"[a\",
        "**/[",
        "x*[",
        "/a/**/b*[z",
    ] {
        assert!(Patterns::parse([text]).is_err(), "{text}");
    }
    assert!(Patterns::parse([b"[\xff]"]).is_err());
    assert!(Patterns::parse_ignoring_case([b"[\xff]"]).is_err());
    for text in ["]", "a]", "-", "[a]]", "[a[]", r"[\]]", "[a^]", "{a,b}", "!", "[ -~]"] {
        assert!(Patterns::parse([text]).is_ok(), "{text}");
    }
}

fn lines_of(text: &[u8]) -> Vec<String> {
    let variable = |name: &[u8]| match name {
        b"HOME" => Some(b"/home/ada".to_vec()),
        b"EMPTY" => Some(Vec::new()),
        b"A_1" => Some(b"[a1]".to_vec()),
        b"0" | b"-" => Some(b"special".to_vec()),
        _ => None,
    };
    let lines = patterns_in_file(text, variable);
    lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect()
}

#[test]
fn reads_a_file_line_by_line() {
    let text = b"# comment\n*.o\r\n\n \t /a b \t\n  # not a pattern\n#\nx # y\n\xe2\x80\xaf\xc2\x85z\xe3\x80\x80";
    assert_eq!(lines_of(text), ["*.o", "/a b", "x # y", "z"]);
    assert!(lines_of(b"").is_empty());
    let not_text = patterns_in_file(b" \xff \xfe \n", |_| None);
    assert_eq!(not_text, [b"\xff \xfe"]);
}

#[test]
fn replaces_variables_as_go_does() {
    for (line, expected) in [
        ("$HOME/x", "/home/ada/x"),
        ("${HOME}x/$HOME", "/home/adax//home/ada"),
        ("$HOMEx", ""),
        ("a$EMPTY-b$UNKNOWN.c", "a-b.c"),
        ("$A_1$A_1", "[a1][a1]"),
        ("$$HOME", "$HOME"),
        ("$${HOME}", "${HOME}"),
        ("${$}", "$"),
        ("a$", "a$"),
        ("$", "$"),
        ("$.x$/", "$.x$/"),
        ("$\u{e9}", "$\u{e9}"),
        ("${}a", "a"),
        ("${HOME", "HOME"),
        ("${a b}c", "c"),
        ("$01", "special1"),
        ("${0}1", "special1"),
        ("$-x", "specialx"),
        ("$*", ""),
    ] {
        let expanded = lines_of(line.as_bytes());
        assert_eq!(expanded, [expected], "{line}");
    }
}

#[test]
fn a_comment_is_one_before_variables_are_replaced() {
    let hash = patterns_in_file(b"$X\n", |_| Some(b"#x".to_vec()));
    assert_eq!(hash, [b"#x"]);
}

#[test]
fn reads_files_with_a_byte_order_mark() {
    let utf_16 = |to_bytes: fn(u16) -> [u8; 2], text: &str| {
        text.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>()
    };
    assert_eq!(lines_of(b"\xef\xbb\xbf*.o\n"), ["*.o"]);
    assert_eq!(lines_of(&utf_16(u16::to_be_bytes, "\u{feff}é\r\n😀\n")), ["é", "😀"]);
    assert_eq!(lines_of(&utf_16(u16::to_le_bytes, "\u{feff}é\n😀")), ["é", "😀"]);
}

fn any_pattern() -> impl Strategy<Value = String> {
    let component = prop_oneof![
        2 => "[abc]{1,2}",
        2 => Just("**".to_owned()),
        1 => r"[ab]?\*[bc]?|\?|\[a-b\]|\[\^a\]\*",
    ];
    (any::<bool>(), vec(component, 1..5)).prop_map(|(is_absolute, components)| {
        format!("{}{}", if is_absolute { "/" } else { "" }, components.join("/"))
    })
}

fn any_path() -> impl Strategy<Value = String> {
    "/?[abc]{1,2}(/[abc]{1,2}){0,5}"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_match_covers_what_lies_below(pattern in any_pattern(), path in any_path()) {
        let patterns = patterns(&[&pattern]);
        if patterns.matches(path.as_bytes()) {
            let below = format!("{path}/x");
            prop_assert_eq!(patterns.matches_with_child(below.as_bytes()), (true, true));
        }
    }

    #[test]
    fn a_match_is_announced_by_every_folder_above(pattern in any_pattern(), path in any_path()) {
        let patterns = patterns(&[&pattern]);
        if patterns.matches(path.as_bytes()) {
            for (end, _) in path.match_indices('/').skip_while(|(end, _)| *end == 0) {
                prop_assert!(patterns.matches_with_child(&path.as_bytes()[..end]).1);
            }
        }
    }

    #[test]
    fn negating_a_pattern_takes_it_back(pattern in any_pattern(), path in any_path()) {
        let negated = format!("!{pattern}");
        prop_assert!(!patterns(&["**", &negated, &negated]).matches(path.as_bytes())
            || !patterns(&[&pattern]).matches(path.as_bytes()));
        prop_assert_eq!(
            patterns(&[&negated, &pattern]).matches_with_child(path.as_bytes()),
            patterns(&[&pattern]).matches_with_child(path.as_bytes())
        );
    }

    #[test]
    fn nothing_panics(
        pattern in vec(prop_oneof![prop::sample::select(br"*?[]^-\/!.a".to_vec()), any::<u8>()], 0..12),
        path in vec(prop_oneof![prop::sample::select(b"/.a".to_vec()), any::<u8>()], 0..12),
    ) {
        let both = [Patterns::parse([&pattern]), Patterns::parse_ignoring_case([&pattern])];
        for patterns in both.into_iter().flatten() {
            patterns.matches_with_child(&path);
        }
        patterns_in_file(&pattern, |name| Some(name.to_vec()));
    }

    #[test]
    fn a_quoted_name_matches_itself(name in "[^/!]{1,8}") {
        prop_assume!(name != "." && name != "..");
        let quoted = name.chars().flat_map(|character| ['\\', character]).collect::<String>();
        let ignoring_case = Patterns::parse_ignoring_case([&quoted]).unwrap();
        prop_assert!(patterns(&[&quoted]).matches(name.as_bytes()));
        prop_assert!(ignoring_case.matches(name.to_uppercase().to_lowercase().as_bytes()) || !name.is_ascii());
    }
}
