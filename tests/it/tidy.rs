//! Conventions that no other tool checks: see CONTRIBUTING.md.

use std::path::{Path, PathBuf};

/// A longer file is about more than one thing.
const MAX_LINES: usize = 500;

/// A longer line can't be read beside another file.
const MAX_COLUMNS: usize = 100;

/// Words and phrases that this project used where the field has a term of its own. The glossary
/// (docs/glossary.md) has the terms.
const BANNED: &[&str] = &[
    "anew",
    "at the most",
    "be born again",
    "good for nothing",
    "goes on as it was",
    "house rules",
    "may be given again",
    "nobody",
    "nobody's",
    "put away",
    "puts away",
    "riddle",
    "so it is at first",
    "somebody",
    "somebody's",
    "taken back",
    "takes back",
    "the same again",
    "told",
    "what is over",
    "whose matter",
];

/// Text with a banned word that is not ours to choose: the name of a Unix account.
const ALLOWED: &[&str] = &["echo nobody"];

/// Kinds of files in which people read prose: code, SQL, documents, scripts, pages, snapshots.
const PROSE: &[&str] = &[
    "css", "dev", "js", "json", "md", "mjs", "py", "rs", "sh", "snap", "sql", "toml", "yml",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every file of the project whose name is, or ends in, one of these.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(root(), extensions, &mut found);
    assert!(found.len() > 80, "the project was not found");
    found
}

fn collect(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                collect(&path, extensions, found);
            }
        } else {
            let extension = name.rsplit_once('.').map_or(name.as_str(), |(_, end)| end);
            if extensions.contains(&extension) {
                found.push(path);
            }
        }
    }
}

/// The banned words of a line. Only whole words count: "toldest" is none.
fn banned_words(line: &str) -> Vec<&'static str> {
    let line = line.to_lowercase();
    let is_word = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    let stands_alone = |at: usize, word: &str| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !is_word(before.chars().next_back()) && !is_word(after.chars().next())
    };
    BANNED
        .iter()
        .filter(|word| {
            line.match_indices(**word)
                .any(|(at, _)| stands_alone(at, word))
        })
        .copied()
        .collect()
}

#[test]
fn no_file_is_longer_than_five_hundred_lines() {
    for path in files(&["rs", "sql"]) {
        // Generated, and read by no one from top to bottom.
        if path.ends_with("store/schema.sql") {
            continue;
        }
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines", path.display());
    }
}

#[test]
fn no_line_of_code_is_wider_than_a_hundred_columns() {
    let mut wide = Vec::new();
    for path in files(&["rs", "sql"]) {
        for (number, line) in (1..).zip(std::fs::read_to_string(&path).unwrap().lines()) {
            // A URL can't be broken, and a table in a doc comment isn't.
            let unbreakable = line.contains("://") || line.trim_start().starts_with("//! |");
            if line.chars().count() > MAX_COLUMNS && !unbreakable {
                wide.push(format!("{}:{number}", path.display()));
            }
        }
    }
    assert!(wide.is_empty(), "too wide:\n{}", wide.join("\n"));
}

#[test]
fn the_prose_uses_the_words_of_the_field() {
    let mut found = Vec::new();
    for path in files(PROSE) {
        // This file names the words.
        if path.ends_with("tests/it/tidy.rs") {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        for (number, line) in (1..).zip(text.lines()) {
            if ALLOWED.iter().any(|allowed| line.contains(allowed)) {
                continue;
            }
            for word in banned_words(line) {
                found.push(format!("{}:{number}: {word}", path.display()));
            }
        }
    }
    assert!(
        found.is_empty(),
        "docs/glossary.md has the field's terms for:\n{}",
        found.join("\n")
    );
}

#[test]
fn a_banned_word_is_found_in_a_comment_a_page_and_a_help_text() {
    assert_eq!(banned_words("// The worker is told of it."), ["told"]);
    assert_eq!(
        banned_words(r#"p { "Nobody is called." }"#),
        ["nobody"],
        "also with a capital letter"
    );
    assert_eq!(
        banned_words("/// How long it may ring; may be given again"),
        ["may be given again"]
    );
    assert!(banned_words("renewal, bodyguard, untold_rows").is_empty());
}

#[test]
fn the_container_image_is_built_from_every_crate() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let ignore = std::fs::read_to_string(root().join(".dockerignore")).unwrap();
    let members = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = "))
        .expect("the workspace names its members");
    let members: Vec<String> = serde_json::from_str(members).unwrap();
    assert!(members.len() > 5);
    for member in members.iter().filter(|member| *member != ".") {
        let copied = ignore.lines().any(|line| line == format!("!{member}"));
        assert!(
            copied,
            ".dockerignore leaves {member} out of the image's build"
        );
    }
}

#[test]
fn a_doc_comment_says_more_than_one_word() {
    let mut stubs = Vec::new();
    for path in files(&["rs"]) {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (number, window) in (2..).zip(lines.windows(3)) {
            let [before, line, after] = window else {
                continue;
            };
            let is_doc = |line: &str| line.starts_with("///");
            let alone = is_doc(line) && !is_doc(before) && !is_doc(after);
            if alone && line.split_whitespace().count() <= 2 && !line.contains("[`") {
                stubs.push(format!("{}:{number}: {line}", path.display()));
            }
        }
    }
    assert!(stubs.is_empty(), "says too little:\n{}", stubs.join("\n"));
}
