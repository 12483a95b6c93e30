//! The text of a page, as people read it or hear it.

use voice_otp::speech::locales;

/// The attributes whose values people read or hear.
const SPOKEN: [&str; 3] = ["aria-label", "placeholder", "value"];
/// Elements within a line.
const INLINE: [&str; 9] = ["a", "strong", "code", "span", "b", "i", "time", "td", "th"];

/// One line for each block; the values of attributes that people read stand in brackets.
pub(super) fn text_of(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some((before, tag, after)) = next_tag(rest) {
        text.push_str(before);
        let name = tag
            .trim_start_matches('/')
            .split([' ', '>'])
            .next()
            .unwrap_or_default();
        text.push(if INLINE.contains(&name) { ' ' } else { '\n' });
        let is_hidden = ["hidden", "checkbox"]
            .iter()
            .any(|kind| tag.contains(&format!("type=\"{kind}\"")));
        for spoken in SPOKEN.iter().filter_map(|name| attribute(tag, name)) {
            if !is_hidden && !spoken.is_empty() && name != "option" {
                text.push_str(&format!("[{spoken}] "));
            }
        }
        rest = after;
    }
    text.push_str(rest);
    let lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    // The list of languages is long, and not the console's text.
    let is_language = |line: &str| locales().any(|spoken| spoken.locale == line);
    let lines: Vec<String> = lines
        .filter(|line| !line.is_empty() && !is_language(line))
        .collect();
    let text = lines.join("\n").replace("&quot;", "\"");
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

fn next_tag(html: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = html.split_once('<')?;
    let (tag, after) = rest.split_once('>')?;
    Some((before, tag, after))
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    Some(rest.split_once('"')?.0)
}
