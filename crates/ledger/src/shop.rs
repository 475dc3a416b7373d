//! Creates the two schemas and fills them. Owns the generator; refuses to know sessions.

use tokio_postgres::Client;

/// The schema or its data could not be created.
#[derive(Debug, thiserror::Error)]
#[error("schema {schema}, {what}: {source}")]
pub struct SchemaError {
    schema: &'static str,
    what: &'static str,
    source: tokio_postgres::Error,
}

/// Creates schema `shop` with `rows` orders, twice as many order lines, a tenth as many customers and up to 1,000
/// products, then analyses it. About 150,000 rows a second on a small machine.
///
/// # Errors
/// When the server refuses, for instance because the schema exists.
pub async fn create_shop(client: &Client, rows: u64) -> Result<(), SchemaError> {
    let failed = |what| move |source| SchemaError { schema: "shop", what, source };
    client.batch_execute(include_str!("../sql/shop.sql")).await.map_err(failed("tables"))?;
    let (customers, products) = (rows / 10 + 10, (rows / 100 + 10).min(1_000));
    let data = format!(
        "INSERT INTO shop.customers (name, email, profile)
            SELECT 'Customer ' || i, 'c' || i || '@example.com', jsonb_build_object('tier', i % 4, 'tags', jsonb_build_array(i, 'x'))
            FROM generate_series(1, {customers}) i;
         INSERT INTO shop.products (sku, price, tags)
            SELECT 'SKU-' || i, 1 + i % 90, ARRAY['t' || i % 7, 'all'] FROM generate_series(1, {products}) i;
         INSERT INTO shop.orders (customer_id, status, total, payload)
            SELECT 1 + i % {customers}, (enum_range(NULL::shop.order_status))[1 + i % 4], i % 1000,
                   jsonb_build_object('n', i, 'note', 'order ' || i)
            FROM generate_series(1::bigint, {rows}) i;
         INSERT INTO shop.order_items (order_id, line, product_id, quantity)
            SELECT i, line, 1 + (i + line) % {products}, 1 + i % 5
            FROM generate_series(1::bigint, {rows}) i, generate_series(1, 2) line;"
    );
    client.batch_execute(&data).await.map_err(failed("rows"))?;
    analyse(client, "shop", "customers, products, orders, order_items").await
}

/// Creates schema `billing` with `rows` invoices. Made for a second database.
///
/// # Errors
/// When the server refuses, for instance because the schema exists.
pub async fn create_billing(client: &Client, rows: u64) -> Result<(), SchemaError> {
    let failed = |what| move |source| SchemaError { schema: "billing", what, source };
    client.batch_execute(include_str!("../sql/billing.sql")).await.map_err(failed("tables"))?;
    // Session -1 stands for rows that were there before any session.
    let data = format!(
        "INSERT INTO billing.invoices (amount, session, seq, touched, note)
            SELECT i % 1000, -1, i, i, i::text FROM generate_series(1::bigint, {rows}) i;"
    );
    client.batch_execute(&data).await.map_err(failed("rows"))?;
    analyse(client, "billing", "invoices").await
}

async fn analyse(client: &Client, schema: &'static str, tables: &str) -> Result<(), SchemaError> {
    let tables: Vec<String> = tables.split(", ").map(|table| format!("{schema}.{table}")).collect();
    let text = format!("ANALYZE {}", tables.join(", "));
    client.batch_execute(&text).await.map_err(|source| SchemaError { schema, what: "statistics", source })
}
