begin;
declare c cursor for select n, who() from generate_series(1, 6) n;
fetch 2 from c;
-- next
fetch all from c;
commit;
-- next
begin;
declare c cursor for select n, who() from generate_series(1, 6) n;
fetch 2 from c;
commit;
\set FETCH_COUNT 2
select n, who() from generate_series(1, 3) n;
