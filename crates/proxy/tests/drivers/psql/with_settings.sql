set work_mem = '7MB'; set search_path = pg_catalog, public; set timezone = 'Asia/Tokyo';
set session characteristics as transaction isolation level repeatable read;
set role reader;
select set_config('my.own', 'it''s', false);
begin; set local work_mem = '9MB'; set my.own = 'lost'; rollback;
select current_user, current_setting('work_mem'), current_setting('my.own'), current_setting('search_path'), current_setting('TimeZone'), current_setting('default_transaction_isolation'), who();
-- next
select current_user, current_setting('work_mem'), current_setting('my.own'), current_setting('search_path'), current_setting('TimeZone'), current_setting('default_transaction_isolation'), who();
\encoding
