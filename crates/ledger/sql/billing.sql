-- A second database with its own small ledger, so that "all databases of the cluster" is a claim with a proof.
CREATE SCHEMA billing;

CREATE SEQUENCE billing.invoice_number START 500;

CREATE TABLE billing.invoices (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    invoice_no bigint NOT NULL UNIQUE DEFAULT nextval('billing.invoice_number'),
    amount numeric(12, 2) NOT NULL,
    session bigint NOT NULL,
    seq bigint NOT NULL,
    revision bigint NOT NULL DEFAULT 0,
    touched bigint NOT NULL,
    note text NOT NULL,
    UNIQUE (session, seq)
);

CREATE TABLE billing.accounts (
    id bigint PRIMARY KEY,
    session bigint NOT NULL,
    balance bigint NOT NULL,
    version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE billing.sessions (
    session bigint PRIMARY KEY,
    last_seq bigint NOT NULL,
    previous bigint NOT NULL,
    chain bigint NOT NULL
) WITH (fillfactor = 50);

CREATE SEQUENCE billing.entry_number;

CREATE TABLE billing.ledger (
    session bigint NOT NULL,
    seq bigint NOT NULL,
    entry_no bigint NOT NULL DEFAULT nextval('billing.entry_number'),
    op text NOT NULL,
    amount bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (session, seq)
);

CREATE TABLE billing.journal (
    session bigint NOT NULL,
    seq bigint NOT NULL,
    entry_no bigint NOT NULL
);
