-- The program begins to read when the test says so, and counts.
\copy (select who(), repeat('x', 1000) from generate_series(1, 60000)) to program 'read go < $GO; grep -c blue'
-- next, unheard
-- next
select who();
