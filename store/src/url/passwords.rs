//! Passwords that aren't in the URL: `PGPASSWORD` and libpq's password file.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Error;

/// The parts of the environment that name passwords.
#[derive(Default)]
pub(super) struct Environment {
    /// `PGPASSWORD`, which counts before any file.
    pub(super) password: Option<OsString>,
    /// `PGPASSFILE`, the path of a password file.
    pub(super) password_file: Option<OsString>,
    /// `HOME`, for `~/.pgpass`.
    pub(super) home: Option<OsString>,
}

impl Environment {
    pub(super) fn of_process() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            password: variable("PGPASSWORD"),
            password_file: variable("PGPASSFILE"),
            home: variable("HOME"),
        }
    }
}

/// Where passwords come from, for a URL without one.
pub(super) enum Passwords {
    /// The same for every server.
    Fixed(String),
    /// The text of a password file.
    File(String),
    /// There are none.
    None,
}

impl Passwords {
    /// `named` is the URL's `passfile`. A file that is named must be readable; `~/.pgpass` needs
    /// not exist.
    pub(super) fn find(named: Option<&str>, environment: &Environment) -> Result<Self, Error> {
        if let Some(password) = &environment.password {
            let password = password.to_str().ok_or(Error::Value("PGPASSWORD"))?;
            return Ok(Self::Fixed(password.to_owned()));
        }
        let (path, is_named) = match (named, &environment.password_file, &environment.home) {
            (Some(path), ..) => (PathBuf::from(path), true),
            (None, Some(path), _) => (PathBuf::from(path), true),
            (None, None, Some(home)) => (Path::new(home).join(".pgpass"), false),
            (None, None, None) => return Ok(Self::None),
        };
        match read_private(&path) {
            Ok(text) => Ok(Self::File(text)),
            Err(error) if is_named => Err(Error::File("passfile", path, error)),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, "the password file ~/.pgpass is ignored");
                }
                Ok(Self::None)
            }
        }
    }

    /// The password for a server.
    pub(super) fn of(&self, host: &str, port: u16, database: &str, user: &str) -> Option<String> {
        match self {
            Self::Fixed(password) => Some(password.clone()),
            Self::File(text) => {
                let port = port.to_string();
                let wanted = [host, &port, database, user];
                text.lines().find_map(|line| password_of(line, wanted))
            }
            Self::None => None,
        }
    }
}

/// Reads a file that only its owner can read.
fn read_private(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    if file.metadata()?.mode() & 0o077 != 0 {
        let reason = "others than its owner may read it: chmod 600";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// The password of a line `host:port:database:user:password`, if its first four fields are those
/// wanted or an asterisk. A backslash makes the next character an ordinary one.
fn password_of(line: &str, wanted: [&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut characters = line.chars();
    for wanted in wanted {
        let mut field = String::new();
        let mut is_escaped = false;
        loop {
            match characters.next()? {
                ':' => break,
                '\\' => {
                    is_escaped = true;
                    field.push(characters.next()?);
                }
                character => field.push(character),
            }
        }
        let is_any = field == "*" && !is_escaped;
        if !is_any && field != wanted {
            return None;
        }
    }
    let mut password = String::new();
    while let Some(character) = characters.next() {
        password.push(match character {
            '\\' => characters.next()?,
            ':' => break,
            character => character,
        });
    }
    Some(password).filter(|password| !password.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_matching_line_of_a_password_file_counts() {
        let file = "# a comment\n\
                    other:5432:db:user:wrong\n\
                    host:5433:*:user:by-port\n\
                    host:*:d\\:b:user:with\\:colon\\\\\n\
                    *:*:*:*:last\n";
        let passwords = Passwords::File(file.to_owned());
        for (host, port, database, expected) in [
            ("host", 5433, "db", "by-port"),
            ("host", 5432, "d:b", "with:colon\\"),
            ("elsewhere", 1, "x", "last"),
        ] {
            let found = passwords.of(host, port, database, "user");
            assert_eq!(found.as_deref(), Some(expected));
        }
        let one = Passwords::File("host:5432:db:user:p".to_owned());
        assert_eq!(one.of("host", 5432, "db", "another"), None);
    }

    #[test]
    fn a_password_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = std::env::temp_dir().join(format!("voice-otp-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("pgpass");
        std::fs::write(&path, "*:*:*:*:secret").unwrap();
        let named = path.to_str();
        let set_mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set_mode(0o644);
        let refused = Passwords::find(named, &Environment::default());
        let text = refused.err().unwrap().to_string();
        assert!(text.contains("passfile"), "{text}");
        set_mode(0o600);
        let found = Passwords::find(named, &Environment::default()).unwrap();
        assert_eq!(found.of("h", 1, "d", "u").as_deref(), Some("secret"));
        std::fs::remove_dir_all(directory).unwrap();
    }
}
