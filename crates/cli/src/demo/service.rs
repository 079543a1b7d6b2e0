//! `muster demo-service`: the example service, HTTP over the shop's data.
//!
//! One connection behind a mutex is enough for a demo, and easy to reason about: SQLite has one
//! writer anyway. SQLite blocks, so all work on the data runs on threads made for that.

use std::{
    future::pending,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use muster_model::{Class, Fault};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::spawn_blocking,
    time::sleep,
};

use crate::{
    demo::orders::{NewOrder, OpenError, Orders},
    error::Outcome,
    exit::Exit,
    output::Output,
};

/// How long requests that are under way may take after SIGTERM.
const GRACE: Duration = Duration::from_millis(300);

/// Arguments of `muster demo-service`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The SQLite database
    #[arg(long, value_name = "PATH")]
    database: PathBuf,
    /// The port on 127.0.0.1; 0 for any that is free
    #[arg(long, value_name = "N")]
    port: u16,
    /// Write an invoice for each order into this folder
    #[arg(long, value_name = "FOLDER")]
    uploads: Option<PathBuf>,
    /// Make the database and the folder if they are missing; without this, that is an error
    #[arg(long)]
    create: bool,
    /// Stop when standard input ends: whoever holds it has died
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
enum ServiceError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("serve the example at port {port}")]
    Serve {
        port: u16,
        #[source]
        source: io::Error,
    },
}

impl Fault for ServiceError {
    fn class(&self) -> Class {
        match self {
            Self::Open(OpenError::Missing { .. }) => Class::NotFound,
            _ => Class::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Open(OpenError::Missing { .. }) => "demo-data-missing",
            Self::Open(_) => "demo-data-failed",
            Self::Serve { .. } => "demo-service-failed",
        }
    }

    fn help(&self) -> Option<String> {
        let help = match self {
            Self::Open(OpenError::Missing { .. }) => {
                "restore it; to begin with an empty shop, give --create"
            }
            Self::Open(_) => "is it a database of the example, and may this user write it?",
            Self::Serve { .. } => "choose another port, or 0 for any that is free",
        };
        Some(help.to_owned())
    }
}

/// Runs the service until SIGTERM.
pub(crate) fn run(args: &Args, output: &Output) -> Outcome {
    let orders = Orders::open(&args.database, args.uploads.as_deref(), args.create);
    let orders = orders.map_err(ServiceError::from)?;
    let failed = |source| ServiceError::Serve { port: args.port, source };
    let runtime = Runtime::new().map_err(failed)?;
    let served = runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", args.port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (stop, give_up) = (terminated().map_err(failed)?, terminated().map_err(failed)?);
        let orphaned = orphaned(args.until_stdin_closes).map_err(failed)?;
        output.line(format_args!("listening on http://{address}"))?;
        let serve = axum::serve(listener, router(orders)).with_graceful_shutdown(stop);
        tokio::select! {
            served = async { serve.await } => Ok(served.map_err(failed)?),
            () = async { give_up.await; sleep(GRACE).await } => Ok(()),
            () = orphaned => Ok(()),
        }
    });
    // Does not wait for a query that waits for the database: nothing of it was acknowledged.
    runtime.shutdown_background();
    served.map(|()| Exit::Done)
}

/// Listens for SIGTERM from now on; the future ends when it comes.
fn terminated() -> io::Result<impl Future<Output = ()>> {
    let mut signals = signal(SignalKind::terminate())?;
    Ok(async move {
        signals.recv().await;
    })
}

/// Ends when standard input does, if asked to look at it.
fn orphaned(asked: bool) -> io::Result<impl Future<Output = ()>> {
    let (sender, receiver) = oneshot::channel::<()>();
    let watch = move || {
        // Also an error ends the watch.
        io::copy(&mut io::stdin().lock(), &mut io::sink()).ok();
        drop(sender);
    };
    if asked {
        thread::Builder::new().name("parent".to_owned()).spawn(watch)?;
    }
    Ok(async move {
        match asked {
            true => drop(receiver.await),
            false => pending().await,
        }
    })
}

fn router(orders: Orders) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/health", get(health))
        .route("/orders", get(list).post(place))
        .route("/orders/{number}", get(find))
        .route("/orders/{number}/invoice", get(invoice))
        .with_state(Shop(Arc::new(Mutex::new(orders))))
}

/// The data, shared by all requests.
#[derive(Debug, Clone)]
struct Shop(Arc<Mutex<Orders>>);

impl Shop {
    /// Works on the data, where blocking is allowed.
    async fn ask<T, E>(
        self,
        work: impl FnOnce(&mut Orders) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Refusal>
    where
        T: Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        // Whoever panicked with the lock has rolled back: the data is as sound as before.
        let work = move || work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        match spawn_blocking(work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Refusal::unavailable(&error)),
            Err(error) => Err(Refusal::unavailable(&error)),
        }
    }
}

/// An answer that is not what was asked for.
struct Refusal(StatusCode, String);

impl Refusal {
    fn unavailable(error: &dyn std::error::Error) -> Self {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        Self(StatusCode::SERVICE_UNAVAILABLE, format!("{error}{cause}"))
    }

    fn not_found(what: &str) -> Self {
        Self(StatusCode::NOT_FOUND, format!("there is no {what}"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// 200 if the books were read and are sound, else 503.
async fn health(State(shop): State<Shop>) -> Result<impl IntoResponse, Refusal> {
    let books = shop.ask(|orders| orders.books()).await?;
    let ok = books.are_sound();
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "ok": ok, "orders": books.orders, "balance": books.balance });
    Ok((status, Json(body)))
}

/// Answers 201 when the order is on the disk: this is the acknowledgement.
async fn place(
    State(shop): State<Shop>,
    Json(new): Json<NewOrder>,
) -> Result<impl IntoResponse, Refusal> {
    if let Some(fault) = new.fault() {
        return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, fault.to_owned()));
    }
    let order = shop.ask(|orders| orders.place(new)).await?;
    Ok((StatusCode::CREATED, Json(order)))
}

async fn find(
    State(shop): State<Shop>,
    Path(number): Path<String>,
) -> Result<impl IntoResponse, Refusal> {
    let order = shop.ask(move |orders| orders.find(&number)).await?;
    order.map(Json).ok_or_else(|| Refusal::not_found("such order"))
}

/// Where a page of the list begins.
#[derive(Debug, Deserialize)]
struct Page {
    after: Option<String>,
}

/// One page of orders; `next` is the `after` of the next one, null at the end.
async fn list(
    State(shop): State<Shop>,
    Query(page): Query<Page>,
) -> Result<impl IntoResponse, Refusal> {
    let orders = shop.ask(move |orders| orders.list(page.after.as_deref())).await?;
    let next = orders.last().map(|order| order.number.clone());
    Ok(Json(json!({ "orders": orders, "next": next })))
}

async fn invoice(State(shop): State<Shop>, Path(number): Path<String>) -> Result<String, Refusal> {
    let invoice = shop.ask(move |orders| orders.invoice(&number)).await?;
    invoice.ok_or_else(|| Refusal::not_found("such invoice"))
}
