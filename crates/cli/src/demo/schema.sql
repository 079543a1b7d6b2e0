-- The example shop. Amounts are in cents.
CREATE TABLE customers (
  id   INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE orders (
  id           INTEGER PRIMARY KEY,
  number       TEXT NOT NULL UNIQUE,
  customer     INTEGER NOT NULL REFERENCES customers (id),
  item         TEXT NOT NULL,
  amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
  at           TEXT NOT NULL
) STRICT;

-- Double entry: what one account receives, another gives. The sum is always 0.
CREATE TABLE entries (
  order_id     INTEGER NOT NULL REFERENCES orders (id),
  account      TEXT NOT NULL,
  amount_cents INTEGER NOT NULL
) STRICT;
CREATE INDEX entries_by_order ON entries (order_id);
