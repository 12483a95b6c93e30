//! Describes a schema from Postgres' catalogs, in SQL, the same on every version of Postgres.

use deadpool_postgres::Client;
use voice_otp_store::Pool;

const HEAD: &str = "\
-- The schema that `voice-otp migrate` makes. Generated; see sql/README.md. Comments on tables and
-- columns are in migrations/, the functions' bodies in sql/functions/.
";

/// Sequences that don't belong to a column.
const SEQUENCES: &str = "\
select format('create sequence %I;', c.relname)
  from pg_class c
 where c.relkind = 'S' and c.relnamespace = current_schema()::text::regnamespace
   and not exists (select 1 from pg_depend d where d.objid = c.oid and d.deptype in ('a', 'i'))
 order by c.relname";

const TABLES: &str = "\
select c.oid, c.relname::text as name,
       coalesce(' partition by ' || pg_get_partkeydef(c.oid), '')
           || coalesce(' with (' || array_to_string(c.reloptions, ', ') || ')', '') as options
  from pg_class c
 where c.relkind in ('r', 'p') and not c.relispartition
   and c.relnamespace = current_schema()::text::regnamespace
 order by c.relname";

const COLUMNS: &str = "\
select format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod))
       || case when a.attidentity = 'a' then ' generated always as identity' else '' end
       || case when a.attnotnull and a.attidentity = '' then ' not null' else '' end
       || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
  from pg_attribute a
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
 where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
 order by a.attnum";

/// `n` (not null) is a constraint since Postgres 18, and stands with the columns.
const CONSTRAINTS: &str = "\
select format('constraint %I %s', conname, pg_get_constraintdef(oid))
  from pg_constraint where conrelid = $1 and contype <> 'n' order by conname";

const INDEXES: &str = "\
select pg_get_indexdef(i.indexrelid) || ';'
  from pg_index i join pg_class c on c.oid = i.indexrelid
 where i.indrelid = $1
   and not exists (select 1 from pg_constraint k where k.conindid = i.indexrelid
                      and k.contype in ('p', 'u'))
 order by c.relname";

const TRIGGERS: &str = "\
select pg_get_triggerdef(oid) || ';' from pg_trigger
 where tgrelid = $1 and not tgisinternal order by tgname";

const FUNCTIONS: &str = "\
select format(E'create function %s(%s)\\n    returns %s language %s %s%s%s;', p.proname,
              coalesce(E'\\n        ' || nullif(replace(pg_get_function_identity_arguments(p.oid),
                                                     ', ', E',\\n        '), ''), ''),
              pg_get_function_result(p.oid), l.lanname,
              case p.provolatile when 'i' then 'immutable' when 's' then 'stable'
                                 else 'volatile' end,
              case when p.proretset then ' rows ' || p.prorows else '' end
                  || case when p.prosecdef then ' security definer' else '' end,
              coalesce(' set ' || array_to_string(p.proconfig, ' set '), ''))
  from pg_proc p join pg_language l on l.oid = p.prolang
 where p.pronamespace = current_schema()::text::regnamespace
 order by p.proname";

pub(super) async fn describe(pool: &Pool) -> String {
    let client = pool.get().await.unwrap();
    let name: String = client
        .query_one("select current_schema()::text", &[])
        .await
        .unwrap()
        .get(0);
    let mut sections = vec![HEAD.to_owned()];
    sections.push(lines(&client, SEQUENCES, None).await.join("\n"));
    for table in client.query(TABLES, &[]).await.unwrap() {
        let oid: u32 = table.get("oid");
        let mut fields = lines(&client, COLUMNS, Some(oid)).await;
        fields.extend(lines(&client, CONSTRAINTS, Some(oid)).await);
        let mut section = format!(
            "create table {} (\n    {}\n){};",
            table.get::<_, String>("name"),
            fields.join(",\n    "),
            table.get::<_, String>("options")
        );
        for sql in [INDEXES, TRIGGERS] {
            for line in lines(&client, sql, Some(oid)).await {
                section.push('\n');
                section.push_str(&line);
            }
        }
        sections.push(section);
    }
    sections.push(lines(&client, FUNCTIONS, None).await.join("\n"));
    // The catalogs' functions qualify names with the schema, which is another one for every test.
    let text = sections
        .join("\n\n")
        .replace(&format!("{name}."), "")
        .replace(&format!("search_path={name}"), "search_path from current");
    let lines: Vec<String> = text.lines().map(wrap).collect();
    lines.join("\n").replace("\n\n\n", "\n\n") + "\n"
}

/// Breaks a line at spaces, so that none is longer than a hundred columns.
fn wrap(line: &str) -> String {
    let mut wrapped = String::new();
    let mut rest = line.to_owned();
    while rest.len() > 100
        && let Some(space) = rest[..100].rfind(' ').filter(|space| *space > 8)
    {
        wrapped.push_str(&rest[..space]);
        wrapped.push('\n');
        rest = format!("        {}", &rest[space + 1..]);
    }
    wrapped + &rest
}

async fn lines(client: &Client, sql: &str, table: Option<u32>) -> Vec<String> {
    let rows = match table {
        Some(oid) => client.query(sql, &[&oid]).await,
        None => client.query(sql, &[]).await,
    };
    rows.unwrap().iter().map(|row| row.get(0)).collect()
}
