select pg_advisory_lock(1);
select pg_advisory_lock(1);
select pg_advisory_lock_shared(2);
select pg_advisory_lock(3);
select pg_advisory_unlock(3);
select string_agg(objid || ' ' || mode, ', ' order by objid) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid();
-- next
select who(), string_agg(objid || ' ' || mode, ', ' order by objid) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid();
select pg_advisory_unlock(1);
select pg_advisory_unlock(1);
select pg_advisory_unlock(1);
