//! Questions to a restored server whose answers must be "nothing wrong": every table read, every
//! heap page and every B-tree examined by `amcheck`, in all databases.
//!
//! It asks what `pg_amcheck --heapallindexed` asks, by the same functions, and needs no program
//! for that. For the disposable target of a drill: the extension is created where it is missing.
//!
//! # Source
//! PostgreSQL documentation, *amcheck*; `src/bin/pg_amcheck/pg_amcheck.c` for which relations are
//! asked about.

use muster_repository::run::Run;

use super::{
    PostgresError, PostgresSource,
    connection::{Session, Target},
};

/// How many findings are told of one relation.
const FINDINGS_PER_RELATION: i64 = 10;

/// What questioning a server came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use = "it may have found damage"]
pub struct Integrity {
    /// What is wrong, each with database and relation.
    pub findings: Vec<String>,
    /// Relations that were read or examined.
    pub relations: u64,
    /// Databases in which `amcheck` could not be used; their tables were read, and no more.
    pub without_amcheck: Vec<String>,
}

/// Questions all databases of a server.
///
/// # Errors
/// Fails when the server cannot be reached or asked for its relations, and when the run is
/// cancelled. Damage is no error: it is in the result.
pub fn integrity(source: &PostgresSource, run: &Run) -> Result<Integrity, PostgresError> {
    let target = as_superuser(&Target::parse(source)?);
    let mut found = Integrity::default();
    let mut session = target.connect()?;
    let names: Vec<String> = column(
        &mut session,
        "select datname::text from pg_database where datallowconn order by datname",
    )?;
    for name in names {
        match target.in_database(&name).connect() {
            Ok(mut session) => examine(&name, &mut session, run, &mut found)?,
            Err(error) => {
                found.findings.push(format!("{name}: {}", super::error::chain(&error)));
            }
        }
    }
    Ok(found)
}

/// The same server as its superuser, where it lets anybody be: `amcheck` may not be used by all.
fn as_superuser(target: &Target) -> Target {
    let attempt = || {
        let mut session = target.connect().ok()?;
        let statement = "select rolname::text from pg_roles where rolsuper and rolcanlogin \
                         order by rolname <> current_user, oid limit 1";
        let name = column(&mut session, statement).ok()?.pop()?;
        let mut other = target.clone();
        other.config.user(&name);
        // A role that has no database of its own name is asked in the same one.
        other.config.dbname(target.database());
        other.connect().ok()?;
        Some(other)
    };
    attempt().unwrap_or_else(|| target.clone())
}

fn column(session: &mut Session, statement: &str) -> Result<Vec<String>, PostgresError> {
    let rows = session
        .client()
        .query(statement, &[])
        .map_err(PostgresError::statement("list what there is to examine"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn examine(
    database: &str,
    session: &mut Session,
    run: &Run,
    found: &mut Integrity,
) -> Result<(), PostgresError> {
    for table in column(session, TABLES)? {
        let statement = format!("select count(*)::text from only {table}");
        ask(database, &table, &statement, session, run, found)?;
    }
    let Some(schema) = amcheck(session) else {
        found.without_amcheck.push(database.to_owned());
        return Ok(());
    };
    let has_heap = format!("{schema}.verify_heapam(regclass,boolean,boolean,text,bigint,bigint)");
    let has_heap = session
        .client()
        .query_one("select to_regprocedure($1) is not null", &[&has_heap])
        .is_ok_and(|row| row.get(0));
    // From version 14 on.
    for table in if has_heap { column(session, HEAPS)? } else { Vec::new() } {
        let statement = format!(
            "select 'block ' || blkno || coalesce(', tuple ' || offnum, '') || ': ' || msg \
             from {schema}.verify_heapam({}::regclass, check_toast => true) \
             limit {FINDINGS_PER_RELATION}",
            literal(&table)
        );
        let told = ask(database, &table, &statement, session, run, found)?;
        found.findings.extend(told.into_iter().map(|text| format!("{database}: {table}: {text}")));
    }
    for index in column(session, INDEXES)? {
        let statement =
            format!("select {schema}.bt_index_check({}::regclass, true)::text", literal(&index));
        ask(database, &index, &statement, session, run, found)?;
    }
    Ok(())
}

/// Asks one question; that it fails is a finding, unless the server is gone.
fn ask(
    database: &str,
    relation: &str,
    statement: &str,
    session: &mut Session,
    run: &Run,
    found: &mut Integrity,
) -> Result<Vec<String>, PostgresError> {
    found.relations += 1;
    let asked = session.watched(run, "examine a relation", |client| client.query(statement, &[]));
    match asked {
        Ok(rows) => Ok(rows.iter().filter_map(|row| row.get(0)).collect()),
        Err(PostgresError::Statement { message, .. }) => {
            found.findings.push(format!("{database}: {relation}: {message}"));
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// The schema of `amcheck`, which is created where it can be.
fn amcheck(session: &mut Session) -> Option<String> {
    let schema = "select quote_ident(n.nspname) from pg_extension e \
                  join pg_namespace n on n.oid = e.extnamespace where e.extname = 'amcheck'";
    if let Some(schema) = column(session, schema).ok()?.pop() {
        return Some(schema);
    }
    let create = "create schema if not exists muster_amcheck; \
                  create extension amcheck schema muster_amcheck";
    session.client().batch_execute(create).ok()?;
    Some("muster_amcheck".to_owned())
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

const TABLES: &str = "select format('%I.%I', n.nspname, c.relname) from pg_class c \
    join pg_namespace n on n.oid = c.relnamespace \
    where c.relkind in ('r', 'm') and c.relpersistence <> 't' order by 1";

const HEAPS: &str = "select format('%I.%I', n.nspname, c.relname) from pg_class c \
    join pg_namespace n on n.oid = c.relnamespace join pg_am a on a.oid = c.relam \
    where c.relkind in ('r', 'm') and c.relpersistence <> 't' and a.amname = 'heap' order by 1";

const INDEXES: &str = "select format('%I.%I', n.nspname, c.relname) from pg_class c \
    join pg_namespace n on n.oid = c.relnamespace join pg_am a on a.oid = c.relam \
    join pg_index i on i.indexrelid = c.oid \
    where c.relkind = 'i' and c.relpersistence <> 't' and a.amname = 'btree' \
    and i.indisready and i.indisvalid order by 1";
