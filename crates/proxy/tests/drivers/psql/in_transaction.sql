begin;
insert into said (session, what) values (current_setting('application_name'), 'before');
-- next
insert into said (session, what) values (current_setting('application_name'), 'during');
savepoint a;
select 1 / 0;
rollback to a;
select string_agg(what || '@' || side, ' ' order by at) from said where session = current_setting('application_name');
commit;
-- next
begin;
insert into said (session, what) values (current_setting('application_name'), 'after');
select string_agg(what || '@' || side, ' ' order by at) from said where session = current_setting('application_name');
commit;
