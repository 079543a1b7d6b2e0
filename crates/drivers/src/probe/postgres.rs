//! `sql` probes on PostgreSQL.
//!
//! The query runs through a cursor in a read-only transaction with the probe's time as its
//! `statement_timeout`: it cannot change anything, it does not go on after nobody waits for it,
//! and no more than two rows of it are computed and sent.

use std::{future::Future, time::Duration};

use serde_json::Value;
use tokio_postgres::{Client, Config, SimpleQueryMessage, types::Type};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use super::{
    tls,
    trouble::Trouble,
    value::{Answer, percent_decoded},
};
use crate::text::quote;

/// Asks once over a connection of its own.
pub(super) async fn ask(
    url: &str,
    password: Option<&Zeroizing<String>>,
    query: &str,
    expect: &Value,
    limit: Duration,
) -> Result<String, Trouble> {
    let (mut config, tls) = read_url(url).map_err(Trouble::Answer)?;
    if let (Some(password), None) = (password, config.get_password()) {
        config.password(password.as_str());
    }
    config.connect_timeout(limit);
    let (client, connection) =
        config.connect(MakeRustlsConnect::new(tls)).await.map_err(|error| failed(&error))?;
    // Dropping either ends the connection: nothing is left behind when the time is over.
    let answer = whichever_first(value_of(&client, query, limit), async {
        match connection.await {
            Ok(()) => Trouble::NoAnswer("the server hung up".to_owned()),
            Err(error) => failed(&error),
        }
    });
    compare(&answer.await?, expect)
}

/// The answer, or what ended the connection before it.
async fn whichever_first<T>(
    answer: impl Future<Output = Result<T, Trouble>>,
    end: impl Future<Output = Trouble>,
) -> Result<T, Trouble> {
    tokio::select! {
        biased;
        answer = answer => answer,
        trouble = end => Err(trouble),
    }
}

pub(super) fn compare(answer: &Answer, expect: &Value) -> Result<String, Trouble> {
    if answer.is(expect) {
        return Ok(format!("answered {answer}"));
    }
    let expect = quote(&expect.to_string());
    Err(Trouble::Answer(format!("answered {answer}, expected {expect}")))
}

/// Reads an address, with the two words of `sslmode` that the client does not know. Nothing of
/// it is decoded and encoded again but what those words need.
fn read_url(url: &str) -> Result<(Config, rustls::ClientConfig), String> {
    let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
    let parameters = || parameters.split('&').filter_map(|pair| pair.split_once('='));
    let value = |wanted: &str| parameters().find(|(name, _)| *name == wanted).map(|pair| pair.1);
    let tls = match (value("sslmode"), value("sslrootcert")) {
        (Some("verify-ca" | "verify-full"), Some(file)) => {
            tls::verified(&percent_decoded(file).unwrap_or_default())?
        }
        (Some(mode @ ("verify-ca" | "verify-full")), None) => {
            return Err(format!("sslmode={mode} needs sslrootcert=FILE in the address"));
        }
        _ => tls::unverified().map_err(|error| error.to_string())?,
    };
    let kept = parameters().filter(|(name, _)| *name != "sslrootcert").map(|(name, value)| {
        let is_verified = name == "sslmode" && value.starts_with("verify-");
        format!("{name}={}", if is_verified { "require" } else { value })
    });
    let kept: Vec<String> = kept.collect();
    let address =
        if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
    let config = address.parse().map_err(|_| "this is no PostgreSQL address".to_owned())?;
    Ok((config, tls))
}

/// The first column of the first and only row.
async fn value_of(client: &Client, query: &str, limit: Duration) -> Result<Answer, Trouble> {
    let query = query.trim().trim_end_matches(';').trim_end();
    let failed = |error: tokio_postgres::Error| failed(&error);
    let begin = format!(
        "begin transaction read only; set local statement_timeout = {}",
        limit.as_millis().clamp(1, 1 << 30)
    );
    client.batch_execute(&begin).await.map_err(failed)?;
    // Refuses several statements in one text, and tells the column's type.
    let statement = client.prepare(query).await.map_err(failed)?;
    let Some(kind) = statement.columns().first().map(|column| column.type_().clone()) else {
        return Err(Trouble::Answer("the query has no column".to_owned()));
    };
    let declare = format!("declare muster_probe no scroll cursor for {query}");
    client.batch_execute(&declare).await.map_err(failed)?;
    let fetched = client.simple_query("fetch 2 from muster_probe").await.map_err(failed)?;
    let mut rows = fetched.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    match (rows.next(), rows.next()) {
        (None, _) => Err(Trouble::Answer("no row, expected one".to_owned())),
        (Some(_), Some(_)) => Err(Trouble::Answer("several rows, expected one".to_owned())),
        (Some(row), None) => Ok(typed(row.get(0), &kind)),
    }
}

/// Reads a value in the text form of its type.
fn typed(text: Option<&str>, kind: &Type) -> Answer {
    const NUMBERS: [Type; 8] = [
        Type::INT2,
        Type::INT4,
        Type::INT8,
        Type::FLOAT4,
        Type::FLOAT8,
        Type::NUMERIC,
        Type::OID,
        Type::XID,
    ];
    match text {
        None => Answer::Null,
        Some(text) if *kind == Type::BOOL => Answer::Bool(text == "t"),
        Some(text) if NUMBERS.contains(kind) => Answer::Number(text.to_owned()),
        Some(text) => Answer::Text(text.to_owned()),
    }
}

/// An error that the server answered with is an answer.
fn failed(error: &tokio_postgres::Error) -> Trouble {
    match error.as_db_error() {
        Some(answer) => {
            let (message, state) = (quote(answer.message()), answer.code().code());
            Trouble::Answer(format!("the server said: {message} ({state})"))
        }
        None => Trouble::of(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio_postgres::config::SslMode;

    use super::*;

    #[test]
    fn addresses_are_read_with_all_words_of_sslmode() {
        let mode = |url: &str| read_url(url).map(|(config, _)| config.get_ssl_mode());
        assert_eq!(mode("postgresql://a@h/db"), Ok(SslMode::Prefer));
        assert_eq!(mode("postgresql://a@h/db?sslmode=disable"), Ok(SslMode::Disable));
        assert!(mode("postgresql://a@h/db?sslmode=verify-full").unwrap_err().contains("sslroot"));
        assert!(mode("mysql").is_err());
        let url = "postgresql://a@h/db?application_name=a%20b&host=%2Ftmp";
        let (config, _) = read_url(url).unwrap();
        assert_eq!(config.get_application_name(), Some("a b"));
    }

    #[test]
    fn values_are_read_by_type() {
        assert_eq!(typed(Some("t"), &Type::BOOL), Answer::Bool(true));
        assert_eq!(typed(Some("f"), &Type::BOOL), Answer::Bool(false));
        assert_eq!(typed(Some("0.00"), &Type::NUMERIC), Answer::Number("0.00".to_owned()));
        assert_eq!(typed(Some("t"), &Type::TEXT), Answer::Text("t".to_owned()));
        assert_eq!(typed(None, &Type::BOOL), Answer::Null);
    }
}
