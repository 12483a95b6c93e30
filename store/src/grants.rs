//! What a database role needs, as `store/sql/grants.sql` grants it.

use std::error::Error;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::connect;

const GRANTS: &str = include_str!("../sql/grants.sql");

/// A program with a database role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `voice-otp worker`.
    Worker,
    /// `voice-otp console`, and the commands that change settings.
    Console,
}

impl Program {
    /// The variable of the file that names the program's role.
    fn variable(self) -> &'static str {
        match self {
            Self::Worker => ":\"worker\"",
            Self::Console => ":\"console\"",
        }
    }
}

/// The rights on tables and functions that the connected role lacks, like `insert on outbox`. A
/// table or function that isn't there at all isn't listed.
pub(crate) async fn missing(
    client: &Client,
    program: Program,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let wanted: Vec<(&str, &str)> = rights(program).collect();
    let rights: Vec<&str> = wanted.iter().map(|(right, _)| *right).collect();
    let objects: Vec<&str> = wanted.iter().map(|(_, object)| *object).collect();
    // $1: rights. $2: the object of each.
    let sql = "select w.wanted || ' on ' || w.object from unnest($1::text[], $2::text[]) \
                 as w (wanted, object) \
               where not case split_part(w.object, ' ', 1) \
                 when 'function' then has_function_privilege(\
                   to_regprocedure(substr(w.object, 10)), w.wanted) \
                 when 'sequence' then has_sequence_privilege(\
                   to_regclass(substr(w.object, 10)), w.wanted) \
                 else has_table_privilege(to_regclass(w.object), w.wanted) end";
    let rows = client.query(sql, &[&rights, &objects]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Each right and its object: a table's name, or one after `function` or `sequence`.
fn rights(program: Program) -> impl Iterator<Item = (&'static str, &'static str)> {
    GRANTS
        .lines()
        .filter_map(move |line| {
            let (rights, rest) = line.strip_prefix("grant ")?.split_once(" on ")?;
            let (object, role) = rest.split_once(" to ")?;
            let is_own = role.strip_suffix(';') == Some(program.variable());
            (is_own && !object.starts_with("schema ")).then_some((rights, object))
        })
        .flat_map(|(rights, object)| rights.split(", ").map(move |right| (right, object)))
}

/// What an error says about missing rights, if that is its cause.
pub fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let refusal = connect::database_error(error)?;
    (*refusal.code() == SqlState::INSUFFICIENT_PRIVILEGE).then(|| {
        format!(
            "the database role lacks a right: {}; the owner migrates, and store/sql/grants.sql \
             has what each program needs",
            refusal.message()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_of_each_program_are_read_from_the_file() {
        let of = |program| rights(program).collect::<Vec<_>>();
        assert!(of(Program::Worker).contains(&("insert", "outbox")));
        assert!(of(Program::Console).contains(&("delete", "sessions")));
        assert!(!of(Program::Worker).contains(&("select", "sessions")));
        let function = "function maintain_archive_partitions(interval, interval)";
        assert!(of(Program::Worker).contains(&("execute", function)));
    }
}
