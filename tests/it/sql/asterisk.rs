//! Finds an asterisk that stands for columns.

/// The places where `*` stands for columns, with the line before it.
pub(super) fn find(text: &str) -> Vec<String> {
    let code = without_comments(text);
    code.match_indices('*')
        .map(|(at, _)| code[..at].trim_end())
        .filter(|before| is_column_list(before))
        .map(|before| last_line(before).to_owned())
        .collect()
}

/// Whether an asterisk after this text is a list of columns, and not a product or `count(*)`.
fn is_column_list(before: &str) -> bool {
    before.ends_with('.')
        || before.ends_with(',')
        || (before.ends_with('(') && !before.ends_with("count("))
        || matches!(last_word(before), "select" | "returning" | "distinct")
}

fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split("--").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

fn last_word(text: &str) -> &str {
    text.rsplit(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
        .unwrap_or_default()
}

fn last_line(text: &str) -> &str {
    text.rsplit('\n').next().unwrap_or_default().trim()
}

#[test]
fn an_asterisk_for_columns_is_found_and_a_product_is_not() {
    for bad in [
        "select * from t",
        "select d.* from t d",
        "update t set a = 1 returning *",
        "select a, * from t",
        "delete from t g returning g.*",
        "with s as (select a from t) select s.*, 1 from s s",
    ] {
        assert_eq!(find(bad).len(), 1, "{bad}");
    }
    for good in ["select count(*) from t", "select a * 2 from t -- not *"] {
        assert!(find(good).is_empty(), "{good}");
    }
}
