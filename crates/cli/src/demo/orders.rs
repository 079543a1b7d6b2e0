//! The shop's data: customers, orders and a ledger in one SQLite database, and perhaps a folder
//! of invoices.
//!
//! The database is in WAL mode with `synchronous=FULL`: when [`Orders::place`] returns, the order
//! is on the disk. A database that is not there is an error unless it shall be made: a service
//! that quietly started with an empty one would look healthy after a recovery that brought
//! nothing back.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

/// How long to wait for others who write to the database, such as a backup's marker.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Orders on one page of a list.
const PAGE_ORDERS: u32 = 100;

/// The most that one order may cost: the ledger's sum must not overflow.
const AMOUNT_CENTS_MAX: i64 = 100_000_000;

/// Characters of a name, at most.
const NAME_CHARS_MAX: usize = 100;

const SCHEMA: &str = include_str!("schema.sql");

const ORDERS: &str = "SELECT number, name, item, amount_cents, at
    FROM orders JOIN customers ON customers.id = orders.customer";

/// What a customer asks for.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct NewOrder {
    customer: String,
    item: String,
    amount_cents: i64,
}

impl NewOrder {
    /// Why this cannot be ordered, if so.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let is_name = |text: &str| (1..=NAME_CHARS_MAX).contains(&text.trim().chars().count());
        match self {
            Self { customer, .. } if !is_name(customer) => Some("customer: 1 to 100 characters"),
            Self { item, .. } if !is_name(item) => Some("item: 1 to 100 characters"),
            Self { amount_cents: 1..=AMOUNT_CENTS_MAX, .. } => None,
            _ => Some("amount_cents: 1 to 100000000"),
        }
    }
}

/// An order that was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Order {
    /// Its name, such as `A-000123`.
    pub(super) number: String,
    customer: String,
    item: String,
    amount_cents: i64,
    /// When it was placed, as the service's clock had it.
    at: String,
}

impl Order {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get(0)?,
            customer: row.get(1)?,
            item: row.get(2)?,
            amount_cents: row.get(3)?,
            at: row.get(4)?,
        })
    }

    fn invoice(&self) -> String {
        let Self { number, customer, item, amount_cents, at } = self;
        let (euros, cents) = (amount_cents / 100, amount_cents % 100);
        format!(
            "Invoice {number}\nDate: {at}\nCustomer: {customer}\n\n{item}: {euros}.{cents:02} EUR\n"
        )
    }
}

/// What the books say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Books {
    /// How many orders there are.
    pub(super) orders: i64,
    /// The sum of all entries, in cents; 0 if the ledger balances.
    pub(super) balance: i64,
    /// What was ordered and not entered, in cents: an empty ledger balances too.
    unbooked: i64,
}

impl Books {
    /// Whether a shop with these books may sell.
    pub(super) fn are_sound(self) -> bool {
        self.orders > 0 && self.balance == 0 && self.unbooked == 0
    }
}

/// The open database and the folder of invoices.
#[derive(Debug)]
pub(super) struct Orders {
    connection: Connection,
    uploads: Option<PathBuf>,
}

/// Why the data could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// There is no data, and none shall be made.
    #[error("find the example's data: {} {what}", .path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// In which way it is missing.
        what: &'static str,
    },
    /// The database cannot be used.
    #[error("open the example's database {}", .path.display())]
    Database {
        /// Where it is.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The folder of invoices cannot be made.
    #[error("make the example's folder {}", .path.display())]
    Uploads {
        /// Where it should be.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Why an order could not be placed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    /// The database did not take it.
    #[error("record the order")]
    Database(#[from] rusqlite::Error),
    /// The invoice could not be written.
    #[error("write the invoice")]
    Invoice(#[from] io::Error),
}

impl Orders {
    /// Opens the data; makes it where it is missing if `create`.
    pub(super) fn open(
        database: &Path,
        uploads: Option<&Path>,
        create: bool,
    ) -> Result<Self, OpenError> {
        let missing = |path: &Path, what| OpenError::Missing { path: path.to_owned(), what };
        if !create && !database.is_file() {
            return Err(missing(database, "is not there"));
        }
        let failed = |source| OpenError::Database { path: database.to_owned(), source };
        let connection = connect(database, create).map_err(failed)?;
        if !has_schema(&connection).map_err(failed)? {
            match create {
                true => connection.execute_batch(&in_transaction(SCHEMA)).map_err(failed)?,
                false => return Err(missing(database, "is empty")),
            }
        }
        match uploads {
            Some(folder) if create => fs::create_dir_all(folder)
                .map_err(|source| OpenError::Uploads { path: folder.to_owned(), source })?,
            Some(folder) if !folder.is_dir() => return Err(missing(folder, "is not there")),
            _ => {}
        }
        Ok(Self { connection, uploads: uploads.map(Path::to_owned) })
    }

    /// Places an order. When this returns, the order is on the disk.
    pub(super) fn place(&mut self, new: NewOrder) -> Result<Order, PlaceError> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let id: i64 =
            transaction
                .query_row("SELECT coalesce(max(id), 0) + 1 FROM orders", [], |row| row.get(0))?;
        let order = Order {
            number: format!("A-{id:06}"),
            customer: new.customer,
            item: new.item,
            amount_cents: new.amount_cents,
            at: Timestamp::now().to_string(),
        };
        transaction.execute(
            "INSERT INTO customers (name) VALUES (?1) ON CONFLICT DO NOTHING",
            [&order.customer],
        )?;
        transaction.execute(
            "INSERT INTO orders (id, number, customer, item, amount_cents, at)
             SELECT ?1, ?2, id, ?3, ?4, ?5 FROM customers WHERE name = ?6",
            params![id, order.number, order.item, order.amount_cents, order.at, order.customer],
        )?;
        transaction.execute(
            "INSERT INTO entries (order_id, account, amount_cents)
             VALUES (?1, 'receivable', ?2), (?1, 'revenue', -?2)",
            [id, order.amount_cents],
        )?;
        // Before the commit: there may be an invoice without an order, never the other way round.
        if let Some(folder) = &self.uploads {
            write_durably(folder, &order)?;
        }
        transaction.commit()?;
        Ok(order)
    }

    /// Finds an order.
    pub(super) fn find(&self, number: &str) -> rusqlite::Result<Option<Order>> {
        let mut query = self.connection.prepare_cached(&format!("{ORDERS} WHERE number = ?1"))?;
        query.query_row([number], Order::from_row).optional()
    }

    /// Lists the orders after the one with this number, or from the first one; one page at most.
    pub(super) fn list(&self, after: Option<&str>) -> rusqlite::Result<Vec<Order>> {
        let mut query = self.connection.prepare_cached(&format!(
            "{ORDERS} WHERE orders.id > coalesce((SELECT id FROM orders WHERE number = ?1), 0)
             ORDER BY orders.id LIMIT {PAGE_ORDERS}"
        ))?;
        query.query_map([after], Order::from_row)?.collect()
    }

    /// Reads the invoice of an order, if there are both.
    pub(super) fn invoice(&self, number: &str) -> rusqlite::Result<Option<String>> {
        // The file's name is the number in the database, not what somebody typed.
        let order = self.find(number)?;
        let path = self.uploads.as_deref().zip(order).map(|(to, order)| invoice_path(to, &order));
        Ok(path.and_then(|path| fs::read_to_string(path).ok()))
    }

    /// Sums up the ledger.
    pub(super) fn books(&self) -> rusqlite::Result<Books> {
        let mut query = self.connection.prepare_cached(
            "SELECT (SELECT count(*) FROM orders),
                    (SELECT coalesce(sum(amount_cents), 0) FROM entries),
                    (SELECT coalesce(sum(amount_cents), 0) FROM orders)
                  - (SELECT coalesce(sum(amount_cents), 0) FROM entries WHERE amount_cents > 0)",
        )?;
        query.query_row([], |row| {
            Ok(Books { orders: row.get(0)?, balance: row.get(1)?, unbooked: row.get(2)? })
        })
    }
}

fn connect(database: &Path, create: bool) -> rusqlite::Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

fn has_schema(connection: &Connection) -> rusqlite::Result<bool> {
    connection.table_exists(None, "orders")
}

/// All tables or none: whoever is killed in between may try again.
fn in_transaction(statements: &str) -> String {
    format!("BEGIN IMMEDIATE;\n{statements}\nCOMMIT;")
}

fn invoice_path(folder: &Path, order: &Order) -> PathBuf {
    folder.join(format!("{}.txt", order.number))
}

/// Writes the invoice so that a power cut does not take it away: the file, then its name.
fn write_durably(folder: &Path, order: &Order) -> io::Result<()> {
    let mut file = File::create(invoice_path(folder, order))?;
    file.write_all(order.invoice().as_bytes())?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_waits_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let connection = connect(&folder.path().join("orders.db"), true).unwrap();
        let text = |pragma: &str| {
            connection.pragma_query_value(None, pragma, |row| row.get::<_, String>(0)).unwrap()
        };
        let number = |pragma: &str| {
            connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(text("journal_mode"), "wal");
        // 2 is FULL: in WAL mode, the log is synced at every commit.
        assert_eq!(number("synchronous"), 2);
        assert_eq!(number("busy_timeout"), 5_000);
    }

    #[test]
    fn books_are_sound_when_everything_is_entered_twice() {
        let check = |orders, balance, unbooked, expected| {
            let books = Books { orders, balance, unbooked };
            assert_eq!(books.are_sound(), expected, "{books:?}");
        };
        check(1, 0, 0, true);
        check(0, 0, 0, false);
        check(1, 1, 0, false);
        check(1, 0, 1, false);
        check(1, 0, -1, false);
    }
}
