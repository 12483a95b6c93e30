//! The SQL of the store: its files, the schema that they make, and how a database gets there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use voice_otp_store::migrate::{self, Applied, Error};

use crate::database::Database;

mod asterisk;
mod connections;
mod locked_tables;
mod schema;

fn store() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../store")
}

/// The files of a folder under `store/sql`, by name without the extension.
fn files(folder: &str) -> BTreeMap<String, String> {
    let folder = store().join("sql").join(folder);
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

/// The text between a function's first and last `$$`.
fn body(file: &str) -> &str {
    let start = file.find("as $$").expect("a body begins") + "as $$".len();
    let end = start + file[start..].find("$$;").expect("a body ends");
    &file[start..end]
}

#[tokio::test]
async fn the_functions_of_a_migrated_database_are_those_of_the_files() {
    let database = Database::fresh().await;
    let client = database.pool.get().await.unwrap();
    let sql = "select p.proname::text as name, p.prosrc as body from pg_proc p \
               join pg_namespace n on n.oid = p.pronamespace where n.nspname = current_schema()";
    let rows = client.query(sql, &[]).await.unwrap();
    let files = files("functions");
    assert_eq!(rows.len(), files.len(), "one function per file");
    for row in rows {
        let (name, stored): (String, String) = (row.get("name"), row.get("body"));
        let file = files
            .get(&name)
            .unwrap_or_else(|| panic!("{name} has no file"));
        assert_eq!(stored, body(file), "{name}");
    }
    drop(client);
    database.drop_schema().await;
}

#[test]
fn every_function_file_begins_with_its_contract() {
    for (name, file) in files("functions") {
        assert!(
            file.starts_with(&format!("-- {name}(")),
            "{name}: signature"
        );
        let head = &file[..file.find("create or replace function").unwrap()];
        for word in ["ock", "ust "] {
            assert!(
                head.contains(word),
                "{name}: locks, and what it must or must never do"
            );
        }
        for verdict in verdicts(body(&file)) {
            assert!(
                head.contains(&format!("\n--   {verdict} ")),
                "{name}: {verdict}"
            );
        }
    }
}

/// The words that a function's verdict column can have.
fn verdicts(body: &str) -> BTreeSet<&str> {
    let words = [
        "admitted",
        "admitted_without_slot",
        "finished",
        "account_backlog",
        "duplicate",
        "stale_settings",
        "cancelled",
        "superseded",
        "row_locked",
        "race",
        "started",
        "rescheduled",
        "no_slot",
        "line_busy",
        "user_busy",
        "at_concurrency_limit",
        "conflict",
    ];
    let has_verdicts = body.contains("verdict") || body.contains("'rescheduled'");
    words
        .into_iter()
        .filter(|word| has_verdicts && body.contains(&format!("'{word}'")))
        .collect()
}

#[tokio::test]
async fn every_statement_is_prepared_on_the_migrated_schema() {
    let database = Database::fresh().await;
    let client = database.pool.get().await.unwrap();
    let statements = files("statements");
    assert!(statements.len() > 30, "the files were found");
    for (name, text) in statements {
        let prepared = client.prepare(&text).await;
        let statement = prepared.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        for n in 1..=statement.params().len() {
            let comment: String = text.lines().filter(|line| line.starts_with("--")).collect();
            assert!(
                comment.contains(&format!("${n}")),
                "{name}: ${n} is not described"
            );
        }
    }
    drop(client);
    database.drop_schema().await;
}

#[test]
fn every_statement_file_is_used() {
    let mut sources = String::new();
    for path in rust_files(&store().join("src")) {
        sources.push_str(&std::fs::read_to_string(path).unwrap());
    }
    for name in files("statements").keys() {
        assert!(
            sources.contains(&format!("/statements/{name}.sql")),
            "{name} is used"
        );
    }
}

#[test]
fn columns_are_named_and_never_an_asterisk() {
    for folder in ["functions", "statements"] {
        for (name, text) in files(folder) {
            let found = asterisk::find(&text);
            assert!(found.is_empty(), "{folder}/{name}: {found:?}");
        }
    }
    for path in rust_files(&store().join("src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for column_list in ["select *", "returning *", ".* from", ".*, "] {
            assert!(
                !text.contains(column_list),
                "{}: {column_list}",
                path.display()
            );
        }
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn schema_sql_is_what_the_migrations_make() {
    let database = Database::fresh().await;
    let made = schema::describe(&database.pool).await;
    database.drop_schema().await;
    let path = store().join("schema.sql");
    if std::env::var_os("VOICE_OTP_BLESS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        made == committed,
        "store/schema.sql is not what the migrations make; \
         VOICE_OTP_BLESS=1 writes it again. It should be:\n{made}"
    );
}

#[tokio::test]
async fn a_database_from_before_the_first_release_is_refused_with_what_to_do() {
    let database = Database::unmigrated().await;
    let client = database.pool.get().await.unwrap();
    let old = "create table voice_otp_migrations (version integer primary key, name text not null, \
                 checksum bytea not null, applied_at timestamptz not null default now()); \
               insert into voice_otp_migrations (version, name, checksum) \
                 select n, 'settings', 'old' from generate_series(1, 14) as n";
    client.batch_execute(old).await.unwrap();
    drop(client);
    for refused in [
        migrate::apply(&database.pool).await.map(drop),
        migrate::check(&database.pool).await,
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::NeverReleased), "{error:?}");
        assert!(
            error.to_string().ends_with("create a new database"),
            "{error}"
        );
    }
    database.drop_schema().await;
}

#[tokio::test]
async fn a_changed_function_is_applied_by_migrate_and_no_worker_starts_before() {
    let database = Database::fresh().await;
    let pool = &database.pool;
    let client = pool.get().await.unwrap();
    let change = "create or replace function close_circuit(in_pace_key text) returns void \
                    language sql as 'select null::void'; \
                  update voice_otp_functions set checksum = 'older' where name = 'close_circuit'; \
                  create function gone() returns int language sql as 'select 1'; \
                  insert into voice_otp_functions (name, checksum) values ('gone', 'older')";
    client.batch_execute(change).await.unwrap();
    let refused = migrate::check(pool).await.unwrap_err();
    assert!(matches!(refused, Error::FunctionsDiffer(_)), "{refused:?}");
    let text = refused.to_string();
    assert!(
        text.contains("close_circuit, gone; run: voice-otp migrate"),
        "{text}"
    );

    let applied = migrate::apply(pool).await.unwrap();
    let expected = Applied {
        migrations: 0,
        functions: 2,
    };
    assert_eq!(applied, expected);
    migrate::check(pool).await.unwrap();
    let sql = "select prosrc from pg_proc where oid = to_regproc('close_circuit')";
    let stored: String = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(stored, body(&files("functions")["close_circuit"]));
    let sql = "select to_regproc('gone') is null";
    assert!(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
    drop(client);
    database.drop_schema().await;
}

#[tokio::test]
async fn a_second_function_of_one_name_is_refused() {
    let database = Database::fresh().await;
    let client = database.pool.get().await.unwrap();
    let change = "create function close_circuit(in_pace_key text, in_why text) returns void \
                    language sql as 'select null::void'; \
                  update voice_otp_functions set checksum = 'older' where name = 'close_circuit'";
    client.batch_execute(change).await.unwrap();
    drop(client);
    let refused = migrate::apply(&database.pool).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Overloaded(name) if name == "close_circuit"),
        "{refused:?}"
    );
    database.drop_schema().await;
}
