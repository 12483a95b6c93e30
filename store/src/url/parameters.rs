//! A URL as a list of parameters, by libpq's grammar:
//! `postgres://[user[:password]@][host[:port],…][/database][?name=value&…]`.

use std::collections::BTreeMap;

use super::Error;

/// The parameters of a URL by libpq's names. Lists (`host`, `port`) are separated by commas.
pub(super) type Parameters = BTreeMap<String, String>;

/// Reads a URL. A parameter of the query replaces what stands before the query.
pub(super) fn read(url: &str) -> Result<Parameters, Error> {
    let rest = url
        .strip_prefix("postgresql://")
        .or_else(|| url.strip_prefix("postgres://"))
        .ok_or(Error::Url)?;
    // Before the hosts a question mark belongs to the password.
    let (user_info, rest) = match rest.split_once('@') {
        Some((user_info, rest)) if !user_info.contains('/') => (user_info, rest),
        _ => ("", rest),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut parameters = Parameters::new();
    let mut put = |name: &str, value: String| {
        if !value.is_empty() {
            parameters.insert(name.to_owned(), value);
        }
    };
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    put("user", decode(user)?);
    put("password", decode(password)?);
    let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
    // A password with a character that must be encoded looks like this. Its rest isn't shown.
    if database.contains('@') {
        return Err(Error::Url);
    }
    let (hosts, ports) = read_hosts(hosts)?;
    put("host", hosts);
    put("port", ports);
    put("dbname", decode(database)?);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(Error::Url)?;
        put(&decode(name)?, decode(value)?);
    }
    Ok(parameters)
}

/// The hosts and the ports, each joined by commas.
fn read_hosts(text: &str) -> Result<(String, String), Error> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for entry in text.split(',') {
        let (host, port) = match entry.strip_prefix('[') {
            Some(bracketed) => {
                let (address, rest) = bracketed.split_once(']').ok_or(Error::Url)?;
                match rest.strip_prefix(':') {
                    Some(port) => (address, port),
                    None if rest.is_empty() => (address, ""),
                    None => return Err(Error::Url),
                }
            }
            None => entry.split_once(':').unwrap_or((entry, "")),
        };
        hosts.push(decode(host)?);
        ports.push(port.to_owned());
    }
    let join = |list: Vec<String>| {
        if list.iter().all(String::is_empty) {
            String::new()
        } else {
            list.join(",")
        }
    };
    Ok((join(hosts), join(ports)))
}

/// Replaces `%41` by its character. A plus sign stays one, as in libpq.
fn decode(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(rest.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        match (digit(), digit()) {
            (Some(high), Some(low)) if (high, low) != (0, 0) => bytes.push(high * 16 + low),
            _ => return Err(Error::Url),
        }
    }
    String::from_utf8(bytes).map_err(|_| Error::Url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(url: &str) -> Vec<(String, String)> {
        read(url).unwrap().into_iter().collect()
    }

    #[test]
    fn every_part_of_a_url_becomes_a_parameter() {
        let table: &[(&str, &[(&str, &str)])] = &[
            ("postgres://", &[]),
            ("postgresql:///db", &[("dbname", "db")]),
            ("postgres://h", &[("host", "h")]),
            (
                "postgres://u:p%40%2F@h:1/d%20b",
                &[
                    ("dbname", "d b"),
                    ("host", "h"),
                    ("password", "p@/"),
                    ("port", "1"),
                    ("user", "u"),
                ],
            ),
            (
                "postgres://u@a:1,b,[::1]:3/d",
                &[
                    ("dbname", "d"),
                    ("host", "a,b,::1"),
                    ("port", "1,,3"),
                    ("user", "u"),
                ],
            ),
            (
                "postgres://u:a?b@h/d?sslmode=require",
                &[
                    ("dbname", "d"),
                    ("host", "h"),
                    ("password", "a?b"),
                    ("sslmode", "require"),
                    ("user", "u"),
                ],
            ),
            (
                "postgres://%2Fvar%2Frun/d",
                &[("dbname", "d"), ("host", "/var/run")],
            ),
            (
                "postgres:///d?host=/var/run&port=5433&user=a@b",
                &[
                    ("dbname", "d"),
                    ("host", "/var/run"),
                    ("port", "5433"),
                    ("user", "a@b"),
                ],
            ),
            (
                "postgres://h/d?host=other",
                &[("dbname", "d"), ("host", "other")],
            ),
        ];
        for (url, expected) in table {
            let expected: Vec<(String, String)> = expected
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            assert_eq!(parameters(url), expected, "{url}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in [
            "",
            "mysql://h/d",
            "host=h user=u",
            "postgres://u:a/b@h/d",
            "postgres://h/d%",
            "postgres://h/d%0",
            "postgres://h/d%00",
            "postgres://h/d%ff",
            "postgres://[::1/d",
            "postgres://[::1]x/d",
            "postgres://h/d?sslmode",
        ] {
            assert!(matches!(read(url), Err(Error::Url)), "{url}");
        }
    }
}
