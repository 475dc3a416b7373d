-- Thirty by SQL, twenty by messages.
select format('prepare s%s(int) as select $1 + %s || who() as s%s', n, n, n) from generate_series(1, 30) n \gexec
select $1::int + 31 || who() as s31 \parse s31
select $1::int + 32 || who() as s32 \parse s32
select $1::int + 33 || who() as s33 \parse s33
select $1::int + 34 || who() as s34 \parse s34
select $1::int + 35 || who() as s35 \parse s35
select $1::int + 36 || who() as s36 \parse s36
select $1::int + 37 || who() as s37 \parse s37
select $1::int + 38 || who() as s38 \parse s38
select $1::int + 39 || who() as s39 \parse s39
select $1::int + 40 || who() as s40 \parse s40
select $1::int + 41 || who() as s41 \parse s41
select $1::int + 42 || who() as s42 \parse s42
select $1::int + 43 || who() as s43 \parse s43
select $1::int + 44 || who() as s44 \parse s44
select $1::int + 45 || who() as s45 \parse s45
select $1::int + 46 || who() as s46 \parse s46
select $1::int + 47 || who() as s47 \parse s47
select $1::int + 48 || who() as s48 \parse s48
select $1::int + 49 || who() as s49 \parse s49
select $1::int + 50 || who() as s50 \parse s50
execute s1(1);
\bind_named s50 50 \g
select count(*), count(*) filter (where from_sql) from pg_prepared_statements;
-- next
select format('execute s%s(%s)', n, n) from generate_series(1, 30) n \gexec
\bind_named s31 31 \g
\bind_named s32 32 \g
\bind_named s33 33 \g
\bind_named s34 34 \g
\bind_named s35 35 \g
\bind_named s36 36 \g
\bind_named s37 37 \g
\bind_named s38 38 \g
\bind_named s39 39 \g
\bind_named s40 40 \g
\bind_named s41 41 \g
\bind_named s42 42 \g
\bind_named s43 43 \g
\bind_named s44 44 \g
\bind_named s45 45 \g
\bind_named s46 46 \g
\bind_named s47 47 \g
\bind_named s48 48 \g
\bind_named s49 49 \g
\bind_named s50 50 \g
\close_prepared s50
select count(*), count(*) filter (where from_sql) from pg_prepared_statements;
